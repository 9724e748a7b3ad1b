/* SPDX-License-Identifier: Apache-2.0 */
/* ACPI fixed hardware: PM1a event and control blocks, PM timer, GPE0, the SMI command port. */
#ifndef DEV_ACPI_PM_H
#define DEV_ACPI_PM_H

#include "dev/device.h"

/* Where the blocks lie from the base, and how long they are: what the FADT says. */
#define ACPI_PM1A_EVT 0x00
#define ACPI_PM1A_EVT_LEN 4
#define ACPI_PM1A_CNT 0x04
#define ACPI_PM1A_CNT_LEN 2
#define ACPI_PM_TMR 0x08
#define ACPI_PM_TMR_LEN 4
#define ACPI_GPE0 0x20
#define ACPI_GPE0_LEN 16 /* 8 bytes of status, 8 of enable: 64 events */
#define ACPI_PM_LEN 0x80

#define ACPI_SMI_CMD_PORT 0xb2
#define ACPI_ENABLE_COMMAND 0xe1 /* the FADT's ACPI_ENABLE and ACPI_DISABLE */
#define ACPI_DISABLE_COMMAND 0x1e

#define ACPI_PM_TIMER_HZ 3579545u

#define PM1_TMR_STS 0x0001
#define PM1_GBL_STS 0x0020
#define PM1_PWRBTN_STS 0x0100
#define PM1_SLPBTN_STS 0x0200
#define PM1_RTC_STS 0x0400
#define PM1_WAK_STS 0x8000
#define PM1_SCI_EN 0x0001
#define PM1_SLP_TYP_SHIFT 10
#define PM1_SLP_EN 0x2000

#define ACPI_SLP_TYP_S5 7 /* for the _S5 object of the DSDT */

struct acpi_pm;

struct acpi_pm_config {
	uint16_t base;	     /* of ACPI_PM_LEN ports */
	bool timer_32bit;    /* else 24 bits; TMR_VAL_EXT in the FADT */
	struct irq_line sci; /* level-triggered */
	void (*power_off)(
		void *opaque); /* the guest has entered S5; called from within the write */
	void *opaque;
};

struct acpi_pm *acpi_pm_create(struct bus *ports, struct clock *clock,
			       const struct acpi_pm_config *config);
struct device *acpi_pm_device(struct acpi_pm *pm);

/* Somebody presses the power button. */
void acpi_pm_power_button(struct acpi_pm *pm);

/* General purpose event @n, 0..63, has happened. */
void acpi_pm_gpe(struct acpi_pm *pm, unsigned n);

#endif
