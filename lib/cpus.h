/* The CPUs that this process may use: the affinity mask, and the quota of its control groups.
 *
 * A container or a batch system often gives fewer CPUs than the machine has, by a mask (cpuset, taskset) or
 * by a share of time (cpu.max, cpu.cfs_quota_us). Threads above that number only take turns. Nothing is
 * allocated.
 *
 *     unsigned n = apr_cpus_usable();
 */
#ifndef APR_CPUS_H
#define APR_CPUS_H

#include <stddef.h>

#define APR_MAX_CPUS 4096u

/* At least 1; a share of time is rounded up to whole CPUs. */
unsigned apr_cpus_usable(void);
/* The share of time, rounded up, that the groups of this process and all above them allow; 0: no limit. root:
 * "" for this system, else the folder under which proc and sys lie. */
unsigned apr_cpus_quota(const char *root);
/* The numbers of the mask's CPUs, n_max of them at most: first one of each core, then the other threads of
 * the cores, each in ascending order. Returns how many; 0 when the system does not say. */
size_t apr_cpus_list(unsigned *cpus, size_t n_max);

#endif
