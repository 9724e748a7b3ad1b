// SPDX-License-Identifier: Apache-2.0
/* The configuration parser of maru-vm. */
#include <assert.h>

#include "vm/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vm_config c;
	struct error *err = vm_config_parse((const char *)data, size, &c);

	if (err) {
		error_free(err);
		return 0;
	}
	assert(c.cpus >= 1 && c.cpus <= VM_CONFIG_CPUS && c.disk_count <= VM_CONFIG_DISKS && c.kernel.fd >= 3);
	for (unsigned i = 1; i < c.fd_count; i++)
		assert(c.fds[i] > c.fds[i - 1]);
	vm_config_finish(&c);
	return 0;
}
