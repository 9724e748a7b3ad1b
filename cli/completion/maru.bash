# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Completion of maru's command line for bash. Options come from the command's own --help, guests from its list, running VMs from the
# folder of their control sockets. tests/cli/test_help.pl holds the rest against what maru says.
#
# Words are taken from the line itself: bash would cut debian:12 and --engine=bt in pieces.

_maru_options()
{
	"$@" --help 2>/dev/null | grep -oE -- '(^|[^[:alnum:]-])--[a-z][a-z-]*' | grep -oE -- '--.*' | sort -u
	! "$@" --help 2>/dev/null | grep -qE -- '-o json' || echo -o
	echo --help
}

_maru_guests()
{
	"$1" image list 2>/dev/null | grep -oE '^[a-z]+:[a-z0-9.-]+'
}

_maru_running()
{
	local folder=/tmp/maru-$UID socket
	[ -z "$XDG_RUNTIME_DIR" ] || folder=$XDG_RUNTIME_DIR/maru
	for socket in "$folder"/*.control; do
		[ ! -S "$socket" ] || basename "$socket" .control
	done
}

_maru()
{
	local line=${COMP_LINE:0:COMP_POINT} maru=${COMP_WORDS[0]} typed at cur prev words='' cut
	read -ra typed <<<"$line"
	[[ $line != *[[:space:]] ]] || typed+=('')
	at=$((${#typed[@]} - 1)) cur=${typed[-1]} prev=${typed[-2]}
	cut=${cur%"${cur##*[:=]}"}
	case $cur in
	--*=*) prev=${cur%%=*} cur=${cur#*=} cut=${cut#*=} ;;
	esac

	COMPREPLY=()
	case $at,${typed[1]} in
	1,*) words="run image list status balloon guest doctor help --help --version" ;;
	2,image) words="pull list create info rm --help" ;;
	2,guest) words="ping info ip exec shutdown freeze thaw --help" ;;
	2,help) words="run image list status balloon guest doctor" ;;
	*)
		case $prev in
		-o | --output) words="json" ;;
		--engine) words="auto bt kvm" ;;
		--paravirt) words="on off" ;;
		--net) words="user none" ;;
		--serial) words="stdio none file: unix:" ;;
		--format) words="raw qcow2" ;;
		--cpus) words="1 2 4" ;;
		--memory) words="256M 1G 2G 4G" ;;
		--append | --publish | --name | --cpu-features | --port | --timeout) return ;;
		--kernel | --initrd | --disk | --debugcon | --control | --gdb | --vsock | --share | --backing) ;; # files, by bash itself
		*)
			case ${typed[1]},${typed[2]},$cur in
			image,pull,-*) # a guest has options of its own
				if [[ ${typed[3]} = *:* ]]; then
					words=$(_maru_options "$maru" image pull "${typed[3]}")
				else
					words=$(_maru_options "$maru" image)
				fi
				;;
			*,*,-*) words=$(_maru_options "$maru" "${typed[1]}") ;;
			run,* | image,pull,* | image,info,* | image,rm,*) words=$(_maru_guests "$maru") ;;
			status,* | balloon,*) words=$(_maru_running) ;;
			guest,*) [ $at -ne 3 ] || words=$(_maru_running) ;;
			esac
			;;
		esac
		;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
	# Readline has what is before the last colon or equals sign already.
	COMPREPLY=("${COMPREPLY[@]#"$cut"}")
}
complete -o default -F _maru maru
