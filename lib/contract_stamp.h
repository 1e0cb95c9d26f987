/* Stamps: a note in APR_HOME/stamps that the data of a model passed its scan.
 *
 * A stamp names every file by device, inode, size and time of change, and the tensor table by its hash; the
 * data is scanned again when any of them differs. A stamp that cannot be read, or is not exactly what
 * would be written now, does not count. Failing to write one is no error.
 *
 *     if (!apr_stamp_holds(m)) { scan; apr_stamp_write(m); }
 */
#ifndef APR_CONTRACT_STAMP_H
#define APR_CONTRACT_STAMP_H

#include "model.h"

bool apr_stamp_holds(const struct apr_model *m);
void apr_stamp_write(const struct apr_model *m);

#endif
