/* names.h - array names as path components, and back (interface.md section 2). Pure functions over bytes. */
#ifndef NPKFS_NAMES_H
#define NPKFS_NAMES_H

#include <stdbool.h>
#include <stddef.h>

#define NPKFS_NAME_MAX 255       /* bytes of a component that is shown */
#define NPKFS_COMPONENT_MAX 1024 /* the longest component that the kernel asks for */

/* Writes the escaped name, `suffix` and a NUL; false when that is longer than NPKFS_NAME_MAX. */
bool npkfs_name_escape(char out[NPKFS_NAME_MAX + 1], const void *name, size_t len, const char *suffix);
/* The name behind the canonical component `part` of `len` bytes: at most `len` bytes and a NUL. False for a component
 * that npkfs_name_escape() would not write. */
bool npkfs_name_unescape(char *out, size_t *out_len, const char *part, size_t len);
/* Decodes every %XX of a selection, in any spelling: at most `len` bytes and a NUL. False when a % is not followed by
 * two hex digits, or for a NUL byte. */
bool npkfs_percent_decode(char *out, const char *part, size_t len);
/* Puts a '?' for every control byte and every byte that is not UTF-8: messages may quote what anybody wrote. */
void npkfs_make_printable(char *text);
/* The length of `name` without `suffix`; false when it does not end in it. */
bool npkfs_name_strip(const char *name, const char *suffix, size_t *len);

#endif
