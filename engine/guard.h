/* guard.h - runs a copy out of a mapping so that a file cut short by another process is an error, not a death. */
#ifndef NPKI_GUARD_H
#define NPKI_GUARD_H

/* Calls fn(ctx). 0, or -EIO when it touched a page that its file no longer has and npk_guard_install() was called;
 * `fn` is then left by a jump: it must hold no lock and own no memory. */
int npki_guarded(void (*fn)(void *ctx), void *ctx);

#endif
