/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI fixed hardware, laid out as in the ICH9.
 *
 * Theory of operation. Status bits are set by events and cleared by writing ones; the SCI is held
 * while an enabled one is set and the guest is in ACPI mode. That mode is entered and left through
 * the SMI command port: no SMI is made, what its handler would do (set or clear SCI_EN) is done at
 * once. The PM timer is the clock; its status bit says that the top bit has changed, which is found
 * out when somebody looks, and with a timer only while its interrupt is enabled.
 *
 * Of the sleep states there is S5.
 *
 * Manual: ACPI specification 6.4, section 4.8; Intel ICH9 data sheet, section 13.8. Threading:
 * machine lock.
 */
#include "dev/acpi_pm.h"

#include <assert.h>
#include <stdlib.h>

#define STATUS_BITS \
	(PM1_TMR_STS | PM1_GBL_STS | PM1_PWRBTN_STS | PM1_SLPBTN_STS | PM1_RTC_STS | PM1_WAK_STS)
#define ENABLE_BITS (PM1_TMR_STS | PM1_GBL_STS | PM1_PWRBTN_STS | PM1_SLPBTN_STS | PM1_RTC_STS)
#define CONTROL_BITS \
	0x1c02u /* BM_RLD and SLP_TYP; SCI_EN is the firmware's, SLP_EN and GBL_RLS read as 0 */
#define GPE_BYTES (ACPI_GPE0_LEN / 2)

struct acpi_pm {
	struct device dev;
	struct bus *ports;
	struct clock *clock;
	struct acpi_pm_config config;
	uint16_t status, enable, control;
	uint8_t gpe_status[GPE_BYTES], gpe_enable[GPE_BYTES];
	uint8_t apm[2];	 /* SMI command and its scratch companion */
	uint64_t halves; /* of the timer's range that have passed, as last seen */
	bool sci_level;
	struct clock_timer timer;
	struct io_region event_region, timer_region, gpe_region, smi_region;
};

static uint64_t ticks(struct acpi_pm *pm)
{
	return mul_div(clock_now_ns(pm->clock), ACPI_PM_TIMER_HZ, NS_PER_SEC);
}

static unsigned timer_bits(const struct acpi_pm *pm)
{
	return pm->config.timer_32bit ? 32 : 24;
}

static void update_sci(struct acpi_pm *pm)
{
	bool level = pm->status & pm->enable;

	for (unsigned i = 0; i < GPE_BYTES; i++)
		level = level || pm->gpe_status[i] & pm->gpe_enable[i];
	level = level && pm->control & PM1_SCI_EN;
	if (level == pm->sci_level)
		return;
	pm->sci_level = level;
	irq_set(&pm->config.sci, level);
}

/* Notes a change of the timer's top bit, and arms for the next if that is to interrupt. */
static void update_timer(struct acpi_pm *pm)
{
	unsigned shift = timer_bits(pm) - 1;
	uint64_t halves = ticks(pm) >> shift;

	if (halves != pm->halves)
		pm->status |= PM1_TMR_STS;
	pm->halves = halves;
	if (pm->enable & PM1_TMR_STS)
		clock_arm(pm->clock, &pm->timer,
			  mul_div((halves + 1) << shift, NS_PER_SEC, ACPI_PM_TIMER_HZ) + 1);
	else
		clock_cancel(pm->clock, &pm->timer);
	update_sci(pm);
}

static void fire(void *opaque)
{
	update_timer(opaque);
}

static void write_control(struct acpi_pm *pm, uint16_t value)
{
	pm->control = (pm->control & PM1_SCI_EN) | (value & CONTROL_BITS);
	if (!(value & PM1_SLP_EN))
		return;
	if ((value >> PM1_SLP_TYP_SHIFT & 7) == ACPI_SLP_TYP_S5)
		pm->config.power_off(pm->config.opaque);
	else
		log_guest("the guest asked for sleep type %u, which does not exist",
			  value >> PM1_SLP_TYP_SHIFT & 7);
}

/* Bytes and words of the event and control blocks. */
static void event_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct acpi_pm *pm = opaque;
	unsigned shift = 8 * (offset & 1);
	uint16_t mask = (uint16_t)(size_mask(size) << shift), v = (uint16_t)(value << shift);

	update_timer(pm);
	switch (offset & ~1ull) {
	case ACPI_PM1A_EVT: pm->status &= (uint16_t)~v; break;
	case ACPI_PM1A_EVT + 2:
		pm->enable = ((pm->enable & (uint16_t)~mask) | v) & ENABLE_BITS;
		break;
	case ACPI_PM1A_CNT: write_control(pm, (pm->control & (uint16_t)~mask) | v); break;
	}
	update_timer(pm);
}

static uint64_t event_read(void *opaque, uint64_t offset, unsigned size)
{
	struct acpi_pm *pm = opaque;
	uint16_t value = 0;

	update_timer(pm);
	switch (offset & ~1ull) {
	case ACPI_PM1A_EVT: value = pm->status; break;
	case ACPI_PM1A_EVT + 2: value = pm->enable; break;
	case ACPI_PM1A_CNT: value = pm->control; break;
	}
	return (uint64_t)value >> 8 * (offset & 1);
}

static void timer_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
}

static uint64_t timer_read(void *opaque, uint64_t offset, unsigned size)
{
	struct acpi_pm *pm = opaque;

	return bits(ticks(pm), 0, timer_bits(pm) - 1);
}

static void gpe_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct acpi_pm *pm = opaque;

	if (offset < GPE_BYTES)
		pm->gpe_status[offset] &= (uint8_t)~value;
	else
		pm->gpe_enable[offset - GPE_BYTES] = (uint8_t)value;
	update_sci(pm);
}

static uint64_t gpe_read(void *opaque, uint64_t offset, unsigned size)
{
	const struct acpi_pm *pm = opaque;

	return offset < GPE_BYTES ? pm->gpe_status[offset] : pm->gpe_enable[offset - GPE_BYTES];
}

static void smi_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct acpi_pm *pm = opaque;

	pm->apm[offset] = (uint8_t)value;
	if (offset != 0)
		return;
	if (value == ACPI_ENABLE_COMMAND)
		pm->control |= PM1_SCI_EN;
	else if (value == ACPI_DISABLE_COMMAND)
		pm->control &= (uint16_t)~PM1_SCI_EN;
	update_sci(pm);
}

static uint64_t smi_read(void *opaque, uint64_t offset, unsigned size)
{
	const struct acpi_pm *pm = opaque;

	return pm->apm[offset];
}

void acpi_pm_power_button(struct acpi_pm *pm)
{
	pm->status |= PM1_PWRBTN_STS;
	update_sci(pm);
}

void acpi_pm_gpe(struct acpi_pm *pm, unsigned n)
{
	assert(n < 8 * GPE_BYTES);
	pm->gpe_status[n / 8] |= (uint8_t)(1u << n % 8);
	update_sci(pm);
}

static void reset(struct device *dev)
{
	struct acpi_pm *pm = container_of(dev, struct acpi_pm, dev);

	update_timer(pm);
	pm->status = pm->enable = pm->control = 0;
	memset(pm->gpe_status, 0, sizeof(pm->gpe_status));
	memset(pm->gpe_enable, 0, sizeof(pm->gpe_enable));
	memset(pm->apm, 0, sizeof(pm->apm));
	update_timer(pm);
}

static void destroy(struct device *dev)
{
	struct acpi_pm *pm = container_of(dev, struct acpi_pm, dev);

	clock_cancel(pm->clock, &pm->timer);
	bus_remove(pm->ports, &pm->event_region);
	bus_remove(pm->ports, &pm->timer_region);
	bus_remove(pm->ports, &pm->gpe_region);
	bus_remove(pm->ports, &pm->smi_region);
	free(pm);
}

static void claim(struct acpi_pm *pm, struct io_region *region, const char *name, uint64_t base,
		  uint64_t length, const struct io_ops *ops)
{
	*region = (struct io_region){
		.name = name, .base = base, .length = length, .ops = ops, .opaque = pm
	};
	bus_add(pm->ports, region);
}

struct acpi_pm *acpi_pm_create(struct bus *ports, struct clock *clock,
			       const struct acpi_pm_config *config)
{
	static const struct device_ops ops = { "acpi_pm", reset, destroy };
	static const struct io_ops event_ops = { event_read, event_write, 1, 2 };
	static const struct io_ops timer_ops = { timer_read, timer_write, 4, 4 };
	static const struct io_ops gpe_ops = { gpe_read, gpe_write, 1, 1 };
	static const struct io_ops smi_ops = { smi_read, smi_write, 1, 1 };
	struct acpi_pm *pm = calloc(1, sizeof(*pm));

	assert(pm);
	pm->dev.ops = &ops;
	pm->ports = ports;
	pm->clock = clock;
	pm->config = *config;
	pm->timer.fire = fire;
	pm->timer.opaque = pm;
	claim(pm, &pm->event_region, "acpi pm1a", config->base,
	      ACPI_PM1A_EVT_LEN + ACPI_PM1A_CNT_LEN, &event_ops);
	claim(pm, &pm->timer_region, "acpi timer", config->base + ACPI_PM_TMR, ACPI_PM_TMR_LEN,
	      &timer_ops);
	claim(pm, &pm->gpe_region, "acpi gpe0", config->base + ACPI_GPE0, ACPI_GPE0_LEN, &gpe_ops);
	claim(pm, &pm->smi_region, "smi command", ACPI_SMI_CMD_PORT, 2, &smi_ops);
	reset(&pm->dev);
	return pm;
}

struct device *acpi_pm_device(struct acpi_pm *pm)
{
	return &pm->dev;
}
