# bash completion of numpackfs(1)

_numpackfs() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} head item
	local options="ro rw create drop_if_exists sync= commit= lock_timeout= staging_ttl= show_control allow_other watch= attr_ttl= threads= ctl_max= header= read_ahead_kb= uid= gid= umask=
		autocompact= sandbox cache_dir= log_level= log_file="

	# "watch=poll:5" arrives as several words: COMP_WORDBREAKS holds = and :. The list is glued together again.
	local i=$COMP_CWORD list=$cur
	while ((i > 1)) && [[ ${COMP_WORDS[i]} == [=:] || ${COMP_WORDS[i - 1]} == [=:] ]]; do
		((i--))
		list=${COMP_WORDS[i]}$list
	done
	prev=${COMP_WORDS[i - 1]}

	if [[ $prev == -o || $prev == --options ]]; then
		head=${list%"${list##*,}"} item=${list##*,}
		case $item in
		watch=*) COMPREPLY=($(compgen -W "inotify poll: off" -- "${item#*=}")) ;;
		sync=*) COMPREPLY=($(compgen -W "commit always fsync" -- "${item#*=}")) ;;
		header=*) COMPREPLY=($(compgen -W "numpy 4096" -- "${item#*=}")) ;;
		log_level=*) COMPREPLY=($(compgen -W "error warn info debug trace" -- "${item#*=}")) ;;
		uid=*) COMPREPLY=($(compgen -u -- "${item#*=}")) ;;
		gid=*) COMPREPLY=($(compgen -g -- "${item#*=}")) ;;
		cache_dir=*) COMPREPLY=($(compgen -d -- "${item#*=}")) ;;
		log_file=*) COMPREPLY=($(compgen -f -- "${item#*=}")) ;;
		*=*) ;;
		*)
			COMPREPLY=($(compgen -P "$head" -W "$options" -- "$item"))
			compopt -o nospace
			;;
		esac
	elif [[ $cur == -* ]]; then
		COMPREPLY=($(compgen -W "-f --foreground -d --debug -o --options -h --help -V --version" -- "$cur"))
	else
		compopt -o filenames
		COMPREPLY=($(compgen -d -- "$cur"))
	fi
} && complete -F _numpackfs numpackfs
