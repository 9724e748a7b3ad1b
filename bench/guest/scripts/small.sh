# SPDX-License-Identifier: Apache-2.0
#
# A shell script as build systems have them: many small commands, substitutions and pipes.

i=0
while [ "$i" -lt "$1" ]; do
	i=$((i + 1))
	name=$(basename "/usr/share/file-$i.txt" .txt)
	upper=$(echo "$name" | tr a-z A-Z)
	[ "$(expr "$i" % 3)" -ne 0 ] || upper=$(printf '%s\n' "$upper" | sed 's/FILE/third/')
	echo "$upper" >>/tmp/small.list
	case $upper in
	third*) cut -c 1-5 /tmp/small.list | sort | uniq -c | head -n 1 >/tmp/small.count ;;
	esac
	mkdir -p /tmp/small/$name
	ls /tmp/small >/dev/null
	rmdir /tmp/small/$name
done
cat /tmp/small.list /tmp/small.count
rm -f /tmp/small.list /tmp/small.count
