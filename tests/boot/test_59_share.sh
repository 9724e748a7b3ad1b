#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# timeout: 600
#
# Shared folders in a booted guest: reading and writing, read-only, and no way out.

. "$(dirname "$0")/../guest/lib.sh"

guest_small amd64
mkdir -p "$scratch/rw/dir" "$scratch/ro" "$scratch/outside"
head -c 3000000 /dev/urandom >"$scratch/rw/data"
echo 'from the host' >"$scratch/ro/file"
echo secret >"$scratch/outside/secret"
ln -s ../outside "$scratch/rw/way"
ln -s "$scratch/outside/secret" "$scratch/rw/absolute"
mkfifo "$scratch/rw/fifo"
vm_start --cpus 2 --memory 256M --net none --share "rw=$scratch/rw" --share "ro=$scratch/ro,readonly=on"
vm_boot 200
vm_ok 60 'mkdir /rw /ro && mount -t 9p -o trans=virtio,version=9p2000.L rw /rw && mount -t 9p -o trans=virtio,version=9p2000.L,msize=131072 ro /ro' \
	"two folders are mounted"
vm_run 60 'sha256sum </rw/data'
is "$out" "$(sha256sum <"$scratch/rw/data")" "3 MB of the host are read"
vm_run 120 'head -c 5000000 /dev/urandom >/rw/dir/new && sync && sha256sum </rw/dir/new'
is "$out" "$(sha256sum <"$scratch/rw/dir/new")" "5 MB of the guest are written"
vm_ok 60 'mkdir -p /rw/a/b && mv /rw/dir/new /rw/a/b/moved && ln -s b/moved /rw/a/link && cmp /rw/a/link /rw/a/b/moved && chmod 600 /rw/a/b/moved && truncate -s 7 /rw/a/link' \
	"folders, renaming, links, modes, sizes"
is "$(stat -c '%a %s' "$scratch/rw/a/b/moved") $(readlink "$scratch/rw/a/link")" '600 7 b/moved' "as the host sees"
vm_ok 60 'for i in $(seq 200); do echo $i >/rw/a/f$i || exit 1; done; [ $(ls /rw/a | wc -l) = 202 ] && rm -r /rw/a && ! ls /rw/a 2>/dev/null' \
	"many files come and go"
vm_run 30 'cat /ro/file'
is "$out" 'from the host' "the read-only folder is read"
vm_run 30 'echo x >/ro/file; touch /ro/new; rm /ro/file; mv /ro/file /ro/other; mkdir /ro/dir' || true
is "$(ls "$scratch/ro"; cat "$scratch/ro/file")" $'file\nfrom the host' "and not written"
vm_run 30 'cat /rw/way/secret /rw/absolute; echo changed >/rw/way/secret; echo made >/rw/way/made; ls /rw/..' || true
[[ $out != *$'\nsecret'* && $out != secret* ]]
ok $? "links out of the folder lead nowhere"
is "$(ls "$scratch/outside"; cat "$scratch/outside/secret")" $'secret\nsecret' "what is outside is as it was"
vm_run 30 'timeout 10 cat /rw/fifo' && false
ok 0 "a FIFO of the host does not hang the guest's folder"
vm_run 30 'mknod /rw/disk b 8 0; mknod /rw/null c 1 3; ls /rw/disk /rw/null' || true
[ ! -e "$scratch/rw/disk" ] && [ ! -e "$scratch/rw/null" ]
ok $? "no device nodes are made on the host"
mv "$scratch/ro" "$scratch/gone" && rm -r "$scratch/gone"
vm_run 30 'ls /ro/file; cat /rw/data | wc -c'
[[ $out == *3000000 ]]
ok $? "a folder that vanishes is an error in the guest, and the other goes on"
share=$(pgrep -P "$(<"$scratch/pid")" -x maru-share | head -n 1)
[ -n "$share" ] && grep -q '^Seccomp:[[:space:]]*2' "/proc/$share/status"
ok $? "each folder has a process of its own, with a filter"
pgrep -P "$(<"$scratch/pid")" -x maru-share | xargs -r kill -KILL
vm_run 60 'cat /rw/data | wc -c; ls /rw/dir; echo "still here"'
[[ $out == *'still here'* ]]
ok $? "when it is killed the guest gets errors and lives"
vm_kernel_log
vm_off 60 exit
