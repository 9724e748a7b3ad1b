/* SPDX-License-Identifier: Apache-2.0 */
/* pvpanic: what it knows, what it tells, and what it ignores. */
#include "dev/pvpanic.h"
#include "tests/tap.h"

static unsigned calls, last;

static void happened(void *opaque, unsigned events)
{
	calls++;
	last = events;
}

int main(void)
{
	struct bus *ports = bus_create("ports");
	struct device *d = pvpanic_create(ports, PVPANIC_PORT, happened, NULL);

	is_u64(bus_read(ports, PVPANIC_PORT, 1), 3, "it knows panics and crash kernels");
	bus_write(ports, PVPANIC_PORT, PVPANIC_PANICKED, 1);
	ok(calls == 1 && last == PVPANIC_PANICKED, "a panic");
	bus_write(ports, PVPANIC_PORT, PVPANIC_CRASH_LOADED, 1);
	ok(calls == 2 && last == PVPANIC_CRASH_LOADED, "a crash kernel");
	bus_write(ports, PVPANIC_PORT, 0xfc, 1);
	bus_write(ports, PVPANIC_PORT, 0, 1);
	is_u64(calls, 2, "bits that mean nothing are ignored");
	bus_write(ports, PVPANIC_PORT, 0xffffffff, 4);
	ok(calls == 3 && last == 3, "of a wide write the first byte counts");
	is_u64(bus_read(ports, PVPANIC_PORT + 1, 1), 0xff, "it has one port");
	d->ops->reset(d);
	d->ops->destroy(d);
	is_u64(bus_read(ports, PVPANIC_PORT, 1), 0xff, "gone");
	bus_destroy(ports);
	return done_testing();
}
