#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# timeout: 900
#
# Shared folders in Debian 12 with its cloud kernel: reading and writing, read-only, no way out, and folders or processes
# that go away.

. "$(dirname "$0")/../guest/lib.sh"

guest_debian
! said=$("$maru" run "${guest[@]}" --share "x=$scratch/nowhere" 2>&1 </dev/null) && [[ $said == *"cannot open the folder '$scratch/nowhere': No such file or directory"* ]]
ok $? "a folder that is not there is said by its name"
mkdir -p "$scratch/rw/dir" "$scratch/ro" "$scratch/outside"
head -c 40000000 /dev/urandom >"$scratch/rw/data"
echo 'from the host' >"$scratch/ro/file"
echo secret >"$scratch/outside/secret"
ln -s ../outside "$scratch/rw/way"
ln -s "$scratch/outside/secret" "$scratch/rw/absolute"
mkfifo "$scratch/rw/fifo"
vm_start --cpus 2 --memory 512M --share "rw=$scratch/rw" --share "ro=$scratch/ro,readonly=on"
vm_boot 400
vm_run 30 'uname -r | grep -o cloud'
is "$out" cloud "the guest has Debian's cloud kernel"
vm_ok 60 'mkdir /rw /ro && mount -t virtiofs rw /rw && mount -t virtiofs ro /ro' "two folders are mounted"
! vm_run 60 'mount -t virtiofs nobody /mnt'
ok $? "a tag that nobody has is not"

vm_run 120 'sha256sum </rw/data'
is "$out" "$(sha256sum <"$scratch/rw/data")" "40 MB of the host are read"
vm_run 200 'head -c 50000000 /dev/urandom >/tmp/new && cp /tmp/new /rw/dir/new && sha256sum </tmp/new'
is "$out" "$(sha256sum <"$scratch/rw/dir/new")" "50 MB of the guest are written"
vm_run 120 'echo 3 >/proc/sys/vm/drop_caches; dd if=/rw/dir/new of=/rw/dir/direct bs=1M iflag=direct oflag=direct status=none; cmp /rw/dir/direct /tmp/new && rm /rw/dir/direct && echo same'
is "$out" same "and copied, past the guest's caches"
vm_ok 60 'mkdir -p /rw/a/b && mv /rw/dir/new /rw/a/b/moved && ln -s b/moved /rw/a/link && cmp /rw/a/link /tmp/new && chmod 600 /rw/a/b/moved && truncate -s 7 /rw/a/link && ln /rw/a/b/moved /rw/a/hard' \
	"folders, renaming, links, modes, sizes"
is "$(stat -c '%a %s %h' "$scratch/rw/a/b/moved") $(readlink "$scratch/rw/a/link")" '600 7 2 b/moved' "as the host sees"
vm_ok 120 'for i in $(seq 500); do echo $i >/rw/a/f$i || exit 1; done; [ $(ls -l /rw/a | grep -c " f[0-9]*$") = 500 ] && [ "$(cat /rw/a/f77)" = 77 ] && mv /rw/a/f1 /rw/a/f2 && mv /rw/a /rw/c && rm -r /rw/c && ! ls /rw/c 2>/dev/null' \
	"many files come and go"
mkdir "$scratch/rw/many" && (cd "$scratch/rw/many" && for i in $(seq 20); do mkdir "$i" && (cd "$i" && seq 1000 | xargs touch); done)
echo one >"$scratch/rw/many/1/1"
vm_run 200 'find /rw/many -size -1 | wc -l; cat /rw/many/1/1; find /rw/many -type f | wc -l'
is "$out" $'19999\none\n20000' "more names than the process keeps open: each is found again"
vm_ok 60 'exec 7<>/rw/dir/open && rm /rw/dir/open && echo text >&7 && [ "$(stat -Lc %s /proc/self/fd/7)" = 5 ] && exec 7>&-' \
	"a file that is open and has no name is still there"
vm_ok 60 'echo a >/rw/dir/log && (echo b >>/rw/dir/log) && fallocate -l 100000 /rw/dir/log && [ "$(stat -c %s /rw/dir/log)" = 100000 ] && sync /rw/dir/log && sync' \
	"appending, allocating, sync"
vm_ok 60 'flock /rw/dir/log true' "locks hold within the guest"
vm_run 30 'cat /rw/dir/later'
echo 'by the host' >"$scratch/rw/dir/later"
vm_run 30 'cat /rw/dir/later'
is "$out" 'by the host' "what the host makes is there at once"
echo 'by the host, too' >"$scratch/rw/dir/later"
vm_run 30 'sleep 1.1; cat /rw/dir/later'
is "$out" 'by the host, too' "and what it changes, after a second"

vm_run 30 'cat /ro/file'
is "$out" 'from the host' "the read-only folder is read"
vm_run 30 'echo x >/ro/file; touch /ro/new; rm /ro/file; mv /ro/file /ro/other; mkdir /ro/dir; chmod 600 /ro/file'
[[ $out == *'Read-only file system'* ]]
ok $? "writing to it is refused"
is "$(ls "$scratch/ro"; cat "$scratch/ro/file")" $'file\nfrom the host' "and nothing was changed"

vm_run 30 'cat /rw/way/secret /rw/absolute; echo changed >/rw/way/secret; echo made >/rw/way/made; ls /rw/..'
[[ $out != *$'\nsecret'* && $out != secret* ]]
ok $? "links out of the folder lead nowhere"
is "$(ls "$scratch/outside"; cat "$scratch/outside/secret")" $'secret\nsecret' "what is outside is as it was"
vm_run 30 'mknod /rw/disk b 8 0; mknod /rw/null c 1 3; mkfifo /rw/pipe; ls /rw/disk /rw/null /rw/pipe'
[ ! -e "$scratch/rw/disk" ] && [ ! -e "$scratch/rw/null" ] && [ ! -e "$scratch/rw/pipe" ]
ok $? "no devices and FIFOs are made on the host"

mv "$scratch/ro" "$scratch/gone" && rm -r "$scratch/gone"
vm_run 30 'sleep 1.1; ls /ro/file; head -c 3000000 /rw/data | wc -c'
[[ $out == *3000000 ]]
ok $? "a folder that vanishes is an error in the guest, and the other goes on"
share=$(pgrep -P "$(<"$scratch/pid")" -x maru-share | head -n 1)
[ -n "$share" ] && grep -q '^Seccomp:[[:space:]]*2' "/proc/$share/status"
ok $? "each folder has a process of its own, with a filter"
pgrep -P "$(<"$scratch/pid")" -x maru-share | xargs -r kill -KILL
vm_run 60 'ls /rw/dir; cat /rw/data | wc -c; echo "still here"'
[[ $out == *'Input/output error'*'still here'* ]]
ok $? "when it is killed the guest gets errors and lives"
vm_ok 60 'umount /rw && umount /ro' "and unmounts what is left"
vm_kernel_log
vm_off 200
