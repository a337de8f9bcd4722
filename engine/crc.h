/* crc.h - the two checksums of our formats. Both begin with 0 and go on from what they returned. */
#ifndef NPKI_CRC_H
#define NPKI_CRC_H

#include <stddef.h>
#include <stdint.h>

uint32_t npki_crc32c(uint32_t crc, const void *buf, size_t len); /* the journal's */
uint32_t npki_crc32(uint32_t crc, const void *buf, size_t len);  /* zlib's, of packages and npz */

#endif
