/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MC146818 real-time clock and CMOS RAM: 128 bytes behind ports 0x70/71, 128 more behind 0x72/73.
 */
#ifndef DEV_MC146818_H
#define DEV_MC146818_H

#include "dev/device.h"

#define RTC_PORT 0x70

#define RTC_SECONDS 0x00
#define RTC_SECONDS_ALARM 0x01
#define RTC_MINUTES 0x02
#define RTC_MINUTES_ALARM 0x03
#define RTC_HOURS 0x04
#define RTC_HOURS_ALARM 0x05
#define RTC_DAY_OF_WEEK 0x06
#define RTC_DAY_OF_MONTH 0x07
#define RTC_MONTH 0x08
#define RTC_YEAR 0x09
#define RTC_REG_A 0x0a
#define RTC_REG_B 0x0b
#define RTC_REG_C 0x0c
#define RTC_REG_D 0x0d
#define RTC_CENTURY 0x32 /* as the ACPI FADT says */

#define REG_A_UIP 0x80
#define REG_B_SET 0x80
#define REG_B_PIE 0x40
#define REG_B_AIE 0x20
#define REG_B_UIE 0x10
#define REG_B_SQWE 0x08
#define REG_B_DM_BINARY 0x04
#define REG_B_24H 0x02
#define REG_B_DSE 0x01
#define REG_C_IRQF 0x80
#define REG_C_PF 0x40
#define REG_C_AF 0x20
#define REG_C_UF 0x10
#define REG_D_VRT 0x80

struct mc146818;

/*
 * Claims ports 0x70–0x73. @irq (ISA interrupt 8) is held until register C is read. The clock shows
 * UTC by the wall clock, plus what the guest has set it off by.
 */
struct mc146818 *mc146818_create(struct bus *ports, struct clock *clock, struct irq_line irq);
struct device *mc146818_device(struct mc146818 *rtc);

/*
 * The machine's words to its firmware: a byte of CMOS RAM, @index 0x0e..0x7f but for the century,
 * or 0x80..0xff for the upper bank.
 */
void mc146818_set_cmos(struct mc146818 *rtc, uint8_t index, uint8_t value);

#endif
