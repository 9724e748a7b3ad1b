/* SPDX-License-Identifier: Apache-2.0 */
/* The small ports: debug exit (0xf4), debug console (0xe9), system control port A (0x92). */
#include "dev/debug_exit.h"
#include "dev/debugcon.h"
#include "dev/port92.h"
#include "tests/tap.h"
#include "tests/unit/fakes.h"

static uint32_t exit_value;
static unsigned exits;

static void exited(void *opaque, uint32_t value)
{
	exit_value = value;
	exits++;
}

int main(void)
{
	struct bus *ports = bus_create("ports");
	struct fake_line a20 = { 0 }, reset = { 0 };
	struct fake_chardev chr;
	struct device *d;

	d = debug_exit_create(ports, DEBUG_EXIT_PORT, exited, NULL);
	bus_write(ports, 0xf4, 0x31, 1);
	ok(exits == 1 && exit_value == 0x31, "a byte");
	bus_write(ports, 0xf4, 0x12345678, 4);
	ok(exits == 2 && exit_value == 0x12345678, "a double word, in one");
	is_u64(bus_read(ports, 0xf4, 1), 0, "reads as zero");
	d->ops->reset(d);
	d->ops->destroy(d);
	is_u64(bus_read(ports, 0xf4, 1), 0xff, "gone");

	fake_chardev_init(&chr);
	d = debugcon_create(ports, &chr.chr);
	is_u64(bus_read(ports, 0xe9, 1), 0xe9, "reads as its number");
	bus_write(ports, 0xe9, 'x', 1);
	bus_write(ports, 0xe9, 0x7a79, 2);
	ok(chr.out_len == 2 && chr.out[0] == 'x' && chr.out[1] == 'y',
	   "bytes come out, of that port only");
	d->ops->reset(d);
	d->ops->destroy(d);
	d = debugcon_create(ports, NULL);
	bus_write(ports, 0xe9, 'x', 1);
	d->ops->destroy(d);

	d = port92_create(ports, fake_line(&a20), fake_line(&reset));
	ok(a20.level && bus_read(ports, PORT92, 1) == 2, "A20 passes");
	bus_write(ports, PORT92, 0, 1);
	ok(!a20.level, "A20 off");
	bus_write(ports, PORT92, 0xff, 1);
	ok(a20.level && reset.rises == 1, "A20 on, reset");
	is_u64(bus_read(ports, PORT92, 1), 3, "two bits");
	bus_write(ports, PORT92, 3, 1);
	is_u64(reset.rises, 1, "only the bit's rising resets");
	d->ops->reset(d);
	is_u64(bus_read(ports, PORT92, 1), 2, "reset");
	d->ops->destroy(d);
	bus_destroy(ports);
	return done_testing();
}
