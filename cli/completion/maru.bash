# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Completion of maru's command line for bash. Options come from the command's own --help, guests from its list,
# so that there is nothing here to keep in step.

_maru()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} maru=${COMP_WORDS[0]}
	local command=${COMP_WORDS[1]} words=

	COMPREPLY=()
	if [ "$COMP_CWORD" -eq 1 ]; then
		words="run image status balloon guest doctor help --help"
	elif [ "$command" = image ] && [ "$COMP_CWORD" -eq 2 ]; then
		words="pull list create info rm"
	elif [ "$command" = guest ] && [ "$COMP_CWORD" -eq 2 ]; then
		words="ping info ip exec shutdown freeze thaw"
	else
		case $prev in
		-o | --output) words="json" ;;
		--engine) words="auto bt kvm" ;;
		--paravirt) words="on off" ;;
		--net) words="user none" ;;
		--serial) words="stdio none file: unix:" ;;
		--cpus) words="1 2 4" ;;
		--memory) words="256M 1G 2G 4G" ;;
		--append | --publish | --name) return ;;
		--kernel | --initrd | --disk | --debugcon | --control | --gdb | --vsock) ;;
		*)
			case $cur in
			-*) words=$("$maru" "$command" --help 2>/dev/null | grep -oE -- '--[a-z][a-z-]*' | sort -u) ;;
			*) words=$("$maru" image list 2>/dev/null | grep -oE '^[a-z]+:[a-z0-9.]+') ;;
			esac
			;;
		esac
	fi
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
	# A colon ends a word for readline; what is before it on the line must not come twice.
	if [ "$(type -t __ltrim_colon_completions)" = function ]; then
		__ltrim_colon_completions "$cur"
	fi
}
complete -o default -F _maru maru
