#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# timeout: 400
#
# The host's file system is full while the guest writes to its disks (raw and qcow2): the guest gets I/O errors, maru
# says why, nothing else happens, and when there is room again the guest can go on. The file system is a small tmpfs in a
# mount namespace of its own; where a user may not make one, a limit on the size of files has to do.

if [ "${1-}" != inside ] && unshare -rm true 2>/dev/null; then
	exec unshare -rm "$0" inside
fi
. "$(dirname "$0")/../guest/lib.sh"

full=$scratch/full
mkdir "$full"
if mount -t tmpfs -o size=16m tmpfs "$full" 2>/dev/null; then
	trap 'umount -l "$full" 2>/dev/null; finish' EXIT
	ballast() { head -c 10M /dev/zero >"$full/ballast"; }
	room() { rm "$full/ballast"; }
else
	echo "# no mount namespace: files are limited to 6 MiB instead"
	limit()
	{
		local p
		for p in $(pgrep -P "$(<"$scratch/pid")" -x maru-vm); do
			prlimit --pid "$p" --fsize="$1:"
		done
	}
	ballast() { limit 6291456; }
	room() { limit unlimited; }
fi

guest_small amd64
truncate -s 64M "$full/raw"
"$maru" image create "$full/q.qcow2" 64M >/dev/null
vm_start --cpus 2 --memory 512M --net none --disk "$full/raw,format=raw" --disk "$full/q.qcow2,format=qcow2"
vm_boot 200
ballast

vm_ok 60 'head -c 12582912 /dev/urandom >/tmp/r && dd if=/tmp/r of=/dev/vda bs=64k count=16 conv=notrunc,fsync 2>/dev/null' \
	"1 MiB fits"
vm_run 100 'dd if=/tmp/r of=/dev/vda bs=64k conv=notrunc,fsync'
[ $? -ne 0 ] && [[ $out == *"Input/output error"* ]]
ok $? "12 MiB do not, and the guest is told"
vm_run 100 'dd if=/tmp/r of=/dev/vdb bs=64k conv=notrunc,fsync'
[ $? -ne 0 ] && [[ $out == *"Input/output error"* ]]
ok $? "nor in a qcow2 disk"
grep -q "raw': no space is left for it on the host" "$vm_errors" && grep -q "qcow2': no space is left" "$vm_errors"
ok $? "maru says what is wrong, for each disk"
[ "$(grep -c "no space" "$vm_errors")" -le 4 ]
ok $? "and not for each request"
vm_ok 60 'dd if=/dev/vda bs=64k count=16 2>/dev/null | cmp -n 1048576 - /tmp/r' "what was written before is there"
room
vm_ok 100 'dd if=/tmp/r of=/dev/vda bs=64k count=64 conv=notrunc,fsync 2>/dev/null && echo 3 >/proc/sys/vm/drop_caches && dd if=/dev/vda bs=64k count=64 2>/dev/null | cmp -n 4194304 - /tmp/r' \
	"with room again 4 MiB are written"
vm_ok 100 'dd if=/tmp/r of=/dev/vdb bs=64k count=64 conv=notrunc,fsync 2>/dev/null && echo 3 >/proc/sys/vm/drop_caches && dd if=/dev/vdb bs=64k count=64 2>/dev/null | cmp -n 4194304 - /tmp/r' \
	"in the qcow2 disk too"
vm_off 60 exit
"$maru" image info "$full/q.qcow2" >"$scratch/info" 2>&1
ok $? "the qcow2 disk is whole: $(tail -n 1 "$scratch/info")"
