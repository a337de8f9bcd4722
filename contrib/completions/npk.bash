# bash completion for npk(1): commands, options, stores, and the arrays of the store that was named. npk itself is asked for
# its commands and options.

# Names may hold blanks, so they are matched and quoted one line at a time.
_npk_arrays()
{
	local store=$1 cur=$2 name
	while IFS= read -r name; do
		[[ $name == "$cur"* ]] && COMPREPLY+=("$(printf '%q' "$name")")
	done < <(npk ls -- "$store" 2>/dev/null)
}

# A word as it was typed, without its quotes and with its home directory. Nothing in it is ever run.
_npk_unquote()
{
	local word=$1
	[[ $word == "~" || $word == "~/"* ]] && word=$HOME${word:1}
	case $word in
	\'*\') word=${word:1:-1} ;;
	\"*\") word=${word:1:-1} ;;
	*) word=${word//\\/} ;;
	esac
	printf '%s' "$word"
}

_npk_commands()
{
	npk help 2>/dev/null | sed -n 's/^  \([a-z]\{1,\}\)  *[a-z].*/\1/p'
}

# The options of a command, one a line: "-r --rows", with the word for its value behind it if it has one.
_npk_options()
{
	npk "$1" --help 2>/dev/null | sed -n 's/^  \(-[a-zA-Z]\), \(--[a-z-]*\)\( [^ ]\{1,\}\)\{0,1\}  .*/\1 \2\3/p'
}

_npk()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]}
	local options='' values='' store='' wanted='' letter name value i word
	COMPREPLY=()

	if ((COMP_CWORD == 1)); then
		mapfile -t COMPREPLY < <(compgen -W "$(_npk_commands) -h --help -V --version" -- "$cur")
		return
	fi
	[[ $command =~ ^[a-z]+$ ]] || return
	while read -r letter name value; do
		options+=" $letter $name"
		[[ -n $value ]] && values+="|$letter|$name"
		[[ $prev == "$letter" || $prev == "$name" ]] && wanted=$value
	done < <(_npk_options "$command")
	values=${values:1}
	case $wanted in
	'') ;;
	FILE)
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return
		;;
	FORMAT)
		if [[ $command == cat ]]; then
			mapfile -t COMPREPLY < <(compgen -W 'csv text npy' -- "$cur")
		else
			mapfile -t COMPREPLY < <(compgen -W 'npy npz csv txt safetensors raw parquet feather hdf5 zarr pytorch' -- "$cur")
		fi
		return
		;;
	CODEC)
		mapfile -t COMPREPLY < <(compgen -W 'zstd zlib none' -- "$cur")
		return
		;;
	*) return ;;
	esac
	if [[ $cur == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
		return
	fi
	for ((i = 2; i < COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		if [[ -n $values && $word =~ ^($values)$ ]]; then
			((i++))
		elif [[ $word != -* ]]; then
			store=$word
			break
		fi
	done
	if [[ $command == help ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$(_npk_commands)" -- "$cur")
	elif [[ -z $store ]]; then
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -d -- "$cur")
		[[ $command == unpack || $command == pkginfo ]] && mapfile -t COMPREPLY < <(compgen -f -- "$cur")
	elif [[ $command == @(save|append|import|pack|unpack) ]]; then
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
	else
		_npk_arrays "$(_npk_unquote "$store")" "$cur"
	fi
}

complete -F _npk npk
