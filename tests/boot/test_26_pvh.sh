#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# timeout: 300
#
# PVH direct boot: Debian's kernel without its bzImage wrapping is an ELF file with a PVH note.

. "$(dirname "$0")/../guest/lib.sh"

guest_small amd64
# boot.rst, "The real-mode kernel header": setup_sects, payload_offset, payload_length; the payload is XZ.
perl -e '
	open(my $f, "<:raw", $ARGV[0]) or die "$ARGV[0]: $!\n";
	local $/;
	my $k = <$f>;
	my ($offset, $length) = unpack("x584 V V", $k);
	print substr($k, (ord(substr($k, 0x1f1, 1)) + 1) * 512 + $offset, $length - 4);' "$cache/kernels/amd64/vmlinuz" |
	xz -dc >"$scratch/vmlinux" 2>"$scratch/xz.err"
[ "$(head -c 4 "$scratch/vmlinux")" = $'\x7fELF' ]
ok $? "the kernel is unpacked $(<"$scratch/xz.err")"
guest=(--kernel "$scratch/vmlinux" --initrd "$cache/kernels/amd64/initrd.img" --append 'console=ttyS0 quiet')
for paravirt in on off; do
	vm_start --cpus 2 --memory 512M --net none --paravirt "$paravirt"
	vm_boot 200
	vm_run 60 'nproc; cat /proc/cmdline; ls /sys/firmware/acpi/tables/FACP'
	is "$out" $'2\nconsole=ttyS0 quiet\n/sys/firmware/acpi/tables/FACP' "paravirt $paravirt: CPUs, command line, initrd and ACPI tables have come through"
	vm_kernel_log
	vm_off 100 'poweroff -f'
done
