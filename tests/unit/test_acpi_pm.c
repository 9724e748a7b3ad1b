/* SPDX-License-Identifier: Apache-2.0 */
/* ACPI fixed hardware: the mode switch, events and the SCI, power button, timer, GPEs, S5. */
#include "dev/acpi_pm.h"
#include "tests/tap.h"
#include "tests/unit/fakes.h"

#define BASE 0x600

static struct bus *ports;
static struct acpi_pm *pm;
static struct fake_clock fc;
static struct fake_line sci;
static unsigned powered_off;

static void power_off(void *opaque)
{
	powered_off++;
}

static uint64_t rd(unsigned reg, unsigned size)
{
	return bus_read(ports, BASE + reg, size);
}

static void wr(unsigned reg, uint64_t v, unsigned size)
{
	bus_write(ports, BASE + reg, v, size);
}

static void create(bool wide)
{
	struct acpi_pm_config config = {
		.base = BASE,
		.timer_32bit = wide,
		.sci = fake_line(&sci),
		.power_off = power_off,
	};

	fake_clock_init(&fc);
	pm = acpi_pm_create(ports, &fc.clock, &config);
}

int main(void)
{
	ports = bus_create("ports");
	create(false);
	is_u64(rd(ACPI_PM1A_CNT, 2), 0, "legacy mode after reset");
	wr(2, PM1_PWRBTN_STS, 2);
	acpi_pm_power_button(pm);
	is_u64(rd(0, 2), PM1_PWRBTN_STS, "power button status");
	ok(!sci.level, "no SCI in legacy mode");
	bus_write(ports, ACPI_SMI_CMD_PORT, ACPI_ENABLE_COMMAND, 1);
	is_u64(rd(ACPI_PM1A_CNT, 2), PM1_SCI_EN, "ACPI mode");
	ok(sci.level, "SCI");
	wr(ACPI_PM1A_CNT, 0, 2);
	is_u64(rd(ACPI_PM1A_CNT, 2), PM1_SCI_EN, "SCI_EN is the firmware's");
	wr(0, 0x00ff, 2);
	ok(sci.level, "other bits do not clear it");
	wr(1, 0x01, 1);
	ok(!sci.level && rd(0, 2) == 0, "writing one does, by byte as well");
	acpi_pm_power_button(pm);
	is_u64(rd(0, 4), PM1_PWRBTN_STS << 16 | PM1_PWRBTN_STS, "status and enable in one");
	wr(0, 0xffff0000 | PM1_PWRBTN_STS, 4);
	is_u64(rd(2, 2), 0x0721, "enable bits that exist");
	wr(2, 0, 2);

	acpi_pm_gpe(pm, 13);
	ok(!sci.level, "GPE not enabled");
	wr(ACPI_GPE0 + 8 + 1, 0x20, 1);
	ok(sci.level, "GPE");
	is_u64(rd(ACPI_GPE0, 4), 0x2000, "its status");
	wr(ACPI_GPE0, 0x2000, 2);
	ok(!sci.level, "cleared");

	fake_clock_advance_to(&fc, NS_PER_SEC);
	is_u64(rd(ACPI_PM_TMR, 4), ACPI_PM_TIMER_HZ, "PM timer");
	is_u64(rd(ACPI_PM_TMR + 1, 1), ACPI_PM_TIMER_HZ >> 8 & 0xff, "by byte");
	wr(0, PM1_TMR_STS, 2);
	wr(2, PM1_TMR_STS, 2);
	fake_clock_advance_to(&fc, NS_PER_SEC * (1 << 23) / ACPI_PM_TIMER_HZ - 1000);
	ok(!sci.level, "top bit not changed");
	fake_clock_advance(&fc, 2000);
	ok(sci.level && rd(0, 2) == PM1_TMR_STS, "top bit on: event");
	wr(0, PM1_TMR_STS, 2);
	fake_clock_advance_to(&fc, NS_PER_SEC * (1 << 24) / ACPI_PM_TIMER_HZ + 1000);
	ok(sci.level, "top bit off: event");
	ok(rd(ACPI_PM_TMR, 4) < 10, "24 bits wrap");
	wr(2, 0, 2);
	ok(!fc.armed, "no timer without its interrupt");

	wr(ACPI_PM1A_CNT, 5 << 10 | PM1_SLP_EN, 2);
	is_u64(powered_off, 0, "an unknown sleep type");
	wr(ACPI_PM1A_CNT, ACPI_SLP_TYP_S5 << 10, 2);
	is_u64(powered_off, 0, "no SLP_EN");
	wr(ACPI_PM1A_CNT, ACPI_SLP_TYP_S5 << 10 | PM1_SLP_EN, 2);
	is_u64(powered_off, 1, "S5");
	is_u64(rd(ACPI_PM1A_CNT, 2), ACPI_SLP_TYP_S5 << 10 | PM1_SCI_EN, "SLP_EN reads as zero");
	wr(ACPI_PM1A_CNT + 1, (ACPI_SLP_TYP_S5 << 10 | PM1_SLP_EN) >> 8, 1);
	is_u64(powered_off, 2, "S5 by byte");
	bus_write(ports, ACPI_SMI_CMD_PORT, ACPI_DISABLE_COMMAND, 1);
	is_u64(rd(ACPI_PM1A_CNT, 1), 0, "legacy mode again");
	bus_write(ports, ACPI_SMI_CMD_PORT + 1, 0x42, 1);
	is_u64(bus_read(ports, ACPI_SMI_CMD_PORT, 2), 0x4200 | ACPI_DISABLE_COMMAND,
	       "command port reads back");
	acpi_pm_device(pm)->ops->reset(acpi_pm_device(pm));
	is_u64(rd(0, 4), 0, "reset");
	acpi_pm_device(pm)->ops->destroy(acpi_pm_device(pm));

	create(true);
	fake_clock_advance_to(&fc, 100 * NS_PER_SEC);
	is_u64(rd(ACPI_PM_TMR, 4), 100ull * ACPI_PM_TIMER_HZ, "32-bit timer");
	acpi_pm_device(pm)->ops->destroy(acpi_pm_device(pm));
	bus_destroy(ports);
	return done_testing();
}
