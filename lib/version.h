/* The version of the tools, written into files as the maker's name. */
#ifndef APR_VERSION_H
#define APR_VERSION_H

#define APR_VERSION "0.1.0"

#endif
