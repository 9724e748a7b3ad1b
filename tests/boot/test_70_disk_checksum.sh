#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# timeout: 600
#
# What a guest writes is on the disk: seen from the host after power-off and after kill -9, and by the guest itself
# at its next boot.

. "$(dirname "$0")/../guest/lib.sh"

guest_small amd64
mke2fs -q -t ext4 -F "$scratch/fs" 256M >/dev/null 2>&1
truncate -s 64M "$scratch/raw"
disks=(--disk "$scratch/fs,format=raw" --disk "$scratch/raw,format=raw")

vm_start --cpus 2 --memory 512M --net none "${disks[@]}"
vm_boot 200
vm_ok 60 'mount -t ext4 /dev/vda /mnt && mkdir /mnt/d' \
	"the guest mounts the disk"
vm_ok 200 'cd /mnt/d && for i in $(seq 40); do head -c $((i * 65521)) /dev/urandom >f$i || break; done; sha256sum f* >/mnt/sums && cd / && umount /mnt' \
	"it writes 40 files with checksums"
vm_kernel_log
vm_off 60 exit

e2fsck -fn "$scratch/fs" >"$scratch/fsck" 2>&1
ok $? "the file system is clean, as the host sees it"
debugfs -R "rdump /d $scratch" "$scratch/fs" >/dev/null 2>&1
debugfs -R "dump /sums $scratch/sums" "$scratch/fs" >/dev/null 2>&1
(cd "$scratch/d" && [ "$(wc -l <../sums)" -eq 40 ] && sha256sum --quiet -c ../sums >&2)
ok $? "all 40 files have their checksums, as the host reads them"

vm_start --cpus 2 --memory 512M --net none "${disks[@]}"
vm_boot 200
vm_ok 200 'mount -t ext4 /dev/vda /mnt && cd /mnt/d && sha256sum -c ../sums >/dev/null && cd / && umount /mnt' \
	"all have them at the next boot of the guest"
vm_ok 200 'head -c 33554432 /dev/urandom >/tmp/r && dd if=/tmp/r of=/dev/vdb bs=1M seek=7 conv=notrunc,fsync 2>/dev/null && sha256sum </tmp/r' \
	"the guest writes 32 MiB to a raw disk and flushes them"
written=$out
vm_kill KILL
is "$(tail -c +$((7 * 1048576 + 1)) "$scratch/raw" | head -c 32M | sha256sum)" "$written" \
	"they are on the disk after kill -9"
is "$(stat -c %s "$scratch/raw")" $((64 * 1048576)) "the disk has kept its size"
