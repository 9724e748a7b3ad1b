# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
#   multiboot FILE CODE        a Multiboot kernel of a few bytes: code as \x escapes, run at 1 MiB + 32 in 32-bit mode

multiboot()
{
	{
		printf '\x02\xb0\xad\x1b\x00\x00\x01\x00\xfe\x4f\x51\xe4\x00\x00\x10\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x00\x00\x20\x00\x10\x00'
		printf "$2"
	} >"$1"
}
