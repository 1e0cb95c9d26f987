/* The rows of table.c: each format's file defines one. Everybody else includes fmt.h. */
#ifndef APR_FMT_TABLE_H
#define APR_FMT_TABLE_H

#include "fmt.h"

extern const struct apr_fmt apr_fmt_apr, apr_fmt_gguf, apr_fmt_safetensors;

#endif
