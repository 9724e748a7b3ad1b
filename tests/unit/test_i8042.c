/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keyboard controller: commands, scan code sets, translation, the mouse's protocols, reset,
 * A20.
 */
#include "dev/i8042.h"
#include "tests/tap.h"
#include "tests/unit/fakes.h"

static struct bus *ports;
static struct i8042 *kbc;
static struct fake_line irq1, irq12, a20, reset;

static uint8_t status(void)
{
	return (uint8_t)bus_read(ports, 0x64, 1);
}

static void cmd(uint8_t c)
{
	bus_write(ports, 0x64, c, 1);
}

static void data(uint8_t d)
{
	bus_write(ports, 0x60, d, 1);
}

/* The next byte, with 0x100 added if it is the mouse's; 0x200 when there is none. */
static unsigned next(void)
{
	uint8_t s = status();

	if (!(s & KBC_STATUS_OBF))
		return 0x200;
	return (unsigned)bus_read(ports, 0x60, 1) | (s & KBC_STATUS_AUX ? 0x100 : 0);
}

/* Reads everything that is there; up to seven bytes make one number. */
static uint64_t all(void)
{
	uint64_t v = 0;

	for (unsigned b = next(); b != 0x200; b = next())
		v = v << 8 | (b & 0xff);
	return v;
}

static void mouse(uint8_t b)
{
	cmd(0xd4);
	data(b);
}

static void test_controller(void)
{
	ok(a20.level, "A20 passes after reset");
	cmd(0xaa);
	is_u64(next(), 0x55, "self test");
	cmd(0xab);
	is_u64(next(), 0, "keyboard interface test");
	cmd(0xa9);
	is_u64(next(), 0, "mouse interface test");
	cmd(0x60);
	data(0x47);
	cmd(0x20);
	is_u64(next(), 0x47, "mode byte");
	cmd(0xa7);
	cmd(0x20);
	is_u64(next(), 0x67, "mouse off");
	cmd(0xa8);
	cmd(0xad);
	cmd(0x20);
	is_u64(next(), 0x57, "keyboard off");
	i8042_key(kbc, 0x1e, true);
	is_u64(next(), 0x200, "a disabled port keeps its bytes");
	cmd(0xae);
	is_u64(next(), 0x1e, "until it is enabled");
	cmd(0x65);
	data(0x99);
	cmd(0x25);
	is_u64(next(), 0x99, "controller RAM");
	cmd(0xa4);
	is_u64(next(), 0xf1, "no password");
	cmd(0xd0);
	is_u64(next(), 0xc3, "output port");
	cmd(0xd1);
	data(0xdd);
	ok(!a20.level, "A20 off");
	cmd(0xd1);
	data(0xdf);
	ok(a20.level && reset.rises == 0, "A20 on");
	cmd(0xfe);
	is_u64(reset.rises, 1, "reset pulse");
	cmd(0xff);
	is_u64(reset.rises, 1, "a pulse of nothing");
	cmd(0xd1);
	data(0xde);
	is_u64(reset.rises, 2, "reset by the output port");
	cmd(0xd3);
	data(0x12);
	is_u64(next(), 0x112, "a byte as if from the mouse");
	cmd(0xd2);
	data(0x13);
	is_u64(next(), 0x13, "and from the keyboard");
	is_u64(status() & KBC_STATUS_CMD, 0, "last write was data");
	cmd(0xc0);
	ok(status() & KBC_STATUS_CMD, "was a command");
	next();
	cmd(0x05);
	is_u64(next(), 0x200, "an unknown command has no answer");
}

static void test_keyboard(void)
{
	unsigned rises = irq1.rises;

	i8042_key(kbc, 0x1e, true);
	ok(irq1.level && irq1.rises == rises + 1, "IRQ1");
	i8042_key(kbc, 0x1e, false);
	is_u64(next(), 0x1e, "A, translated");
	ok(irq1.level && irq1.rises == rises + 2, "an edge for the next byte");
	is_u64(next(), 0x9e, "released");
	ok(!irq1.level, "no more");
	i8042_key(kbc, 0xe048, true);
	i8042_key(kbc, 0xe048, false);
	is_u64(all(), 0xe048e0c8, "cursor up");
	i8042_key(kbc, 0xe11d, true);
	is_u64(all(), 0xe11d45e19dc5, "Pause");
	i8042_key(kbc, 0x41, true);
	is_u64(all(), 0x41, "F7");
	cmd(0x60);
	data(0x07);
	i8042_key(kbc, 0x41, true);
	i8042_key(kbc, 0x41, false);
	is_u64(all(), 0x83f083, "F7 in set 2");
	i8042_key(kbc, 0xe037, true);
	i8042_key(kbc, 0xe037, false);
	is_u64(all(), 0xe07ce0f07ce0f012, "Print Screen in set 2 (its last eight bytes)");
	data(0xf0);
	data(0x01);
	is_u64(all(), 0xfafa, "set 1");
	i8042_key(kbc, 0xe01d, false);
	is_u64(all(), 0xe09d, "right control in set 1");
	data(0xf0);
	data(0x00);
	is_u64(all(), 0xfafa01, "asked for the set");
	data(0xf0);
	data(0x03);
	is_u64(all(), 0xfafe, "set 3 is not there");
	data(0xf2);
	is_u64(all(), 0xfaab83, "identify");
	data(0xed);
	data(0x05);
	ok(all() == 0xfafa && i8042_leds(kbc) == 5, "lights");
	data(0xf3);
	data(0x20);
	is_u64(all(), 0xfafa, "typematic rate");
	data(0xee);
	is_u64(all(), 0xee, "echo");
	data(0xfe);
	is_u64(all(), 0xee, "resend");
	data(0x99);
	is_u64(all(), 0xfe, "unknown");
	data(0xf5);
	i8042_key(kbc, 0x1e, true);
	is_u64(all(), 0xfa, "scanning off");
	data(0xff);
	is_u64(all(), 0xfaaa, "reset");
	i8042_key(kbc, 0x1e, true);
	is_u64(all(), 0x1c, "scanning in set 2 again");
	for (unsigned i = 0; i < 1000; i++)
		i8042_key(kbc, 0xe048, i & 1);
	ok(all() != 0, "a full queue drops keys");
	for (unsigned i = 0; i <= 0xffff; i++)
		i8042_key(kbc, (uint16_t)i, true);
	all();
	cmd(0x60);
	data(0x47);
	data(0xf2);
	is_u64(all(), 0xfaab41, "identify, translated");
}

static void test_mouse(void)
{
	unsigned rises = irq12.rises;

	i8042_mouse(kbc, 1, 1, 0, 0);
	is_u64(next(), 0x200, "quiet until enabled");
	mouse(0xff);
	ok(irq12.rises > rises, "IRQ12");
	is_u64(all(), 0xfaaa00, "reset");
	mouse(0xf4);
	is_u64(next(), 0x1fa, "enabled");
	i8042_mouse(kbc, 5, -3, 0, 1);
	is_u64(all(), 0x2905fd, "a packet");
	i8042_mouse(kbc, 1, 0, 0, 1);
	i8042_mouse(kbc, 300, 0, 0, 1);
	i8042_mouse(kbc, 300, 0, 9, 0);
	is_u64(all(), 0xff0008ff00085a00, "the rest adds up (last bytes)");
	mouse(0xf2);
	is_u64(all(), 0xfa00, "plain");
	static const uint8_t knock[] = { 200, 100, 80 };
	for (unsigned i = 0; i < 3; i++) {
		mouse(0xf3);
		mouse(knock[i]);
	}
	mouse(0xf2);
	all();
	mouse(0xf2);
	is_u64(all(), 0xfa03, "with a wheel");
	i8042_mouse(kbc, 0, 0, -1, 4);
	is_u64(all(), 0x0c0000ff, "wheel packet");
	static const uint8_t knock5[] = { 200, 200, 80 };
	for (unsigned i = 0; i < 3; i++) {
		mouse(0xf3);
		mouse(knock5[i]);
	}
	mouse(0xe9);
	is_u64(all() & 0xffffffff, 0xfa220250, "status");
	i8042_mouse(kbc, 0, 0, 1, 0x10);
	is_u64(all(), 0x08000021, "five buttons");
	mouse(0xe7);
	all();
	i8042_mouse(kbc, 4, 100, 0, 0);
	is_u64(all(), 0x0806c800, "2:1 scaling");
	mouse(0xf0);
	all();
	i8042_mouse(kbc, 7, 0, 0, 0);
	is_u64(next(), 0x200, "remote mode: only when asked");
	mouse(0xeb);
	is_u64(all(), 0xfa08070000, "asked");
	mouse(0xee);
	all();
	mouse(0x77);
	is_u64(all(), 0x77, "wrap mode");
	mouse(0xec);
	is_u64(all(), 0xfa, "and out of it");
	mouse(0x11);
	is_u64(all(), 0xfe, "unknown");
	i8042_device(kbc)->ops->reset(i8042_device(kbc));
	ok(!irq1.level && !irq12.level && status() == (KBC_STATUS_UNLOCKED | KBC_STATUS_SYS),
	   "reset");
}

int main(void)
{
	struct i8042_lines lines = { fake_line(&irq1), fake_line(&irq12), fake_line(&a20),
				     fake_line(&reset) };

	ports = bus_create("ports");
	kbc = i8042_create(ports, &lines);
	test_controller();
	test_keyboard();
	test_mouse();
	i8042_device(kbc)->ops->destroy(i8042_device(kbc));
	bus_destroy(ports);
	return done_testing();
}
