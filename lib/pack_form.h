/* Numbers of the two container formats, for pack_*.c alone.
 *
 * LZ4 frame: magic, FLG, BD, HC; blocks of u32 size (top bit: stored plain), data, u32 XXH32 of the data;
 * u32 0. Source: lz4_Frame_format.md 1.6.2. zstd seekable: frames; a skippable frame of entries (u32
 * compressed, u32 content [, u32 checksum]), u32 count, u8 descriptor, u32 magic. Source:
 * zstd_seekable_compression_format.md 0.1.0.
 */
#ifndef APR_PACK_FORM_H
#define APR_PACK_FORM_H

#include "pack.h"

enum {
    APR_LZ4_HEAD = 7,
    APR_LZ4_WORD = 4,
    APR_LZ4_FLAGS = 0x70, /* version 1, independent blocks, a checksum after each */
    APR_LZ4_BLOCK_4MIB = 0x70,
    APR_SEEK_ENTRY = 8,
    APR_SEEK_FOOT = 9,
};
#define APR_LZ4_MAGIC      0x184D2204u
#define APR_LZ4_PLAIN      0x80000000u
#define APR_SEEK_SKIPPABLE 0x184D2A5Eu
#define APR_SEEK_MAGIC     0x8F92EAB1u
#define APR_ZSTD_WINDOW    27 /* log of the largest window that is decoded: 128 MiB */

#endif
