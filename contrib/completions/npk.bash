# bash completion for npk(1): commands, options, stores, and the arrays of the store that was named.

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

_npk()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]}
	local options='' values='' store='' i word
	COMPREPLY=()

	if ((COMP_CWORD == 1)); then
		mapfile -t COMPREPLY < <(compgen -W 'ls info get cat verify help -h --help -V --version' -- "$cur")
		return
	fi
	case $command in
	ls) options='-l --long -j --json' ;;
	info) options='-j --json' ;;
	get)
		options='-r --rows -s --sel -o --output'
		values='-r|--rows|-s|--sel|-o|--output'
		;;
	cat)
		options='-r --rows -s --sel -f --format -b --batch'
		values='-r|--rows|-s|--sel|-f|--format|-b|--batch'
		;;
	verify) options='-j --json -q --quiet' ;;
	help)
		mapfile -t COMPREPLY < <(compgen -W 'ls info get cat verify help' -- "$cur")
		return
		;;
	*) return ;;
	esac
	case $prev in
	-o | --output)
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return
		;;
	-f | --format)
		mapfile -t COMPREPLY < <(compgen -W 'csv text npy' -- "$cur")
		return
		;;
	-r | --rows | -s | --sel | -b | --batch) return ;;
	esac
	if [[ $cur == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$options -h --help" -- "$cur")
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
	if [[ -z $store ]]; then
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -d -- "$cur")
	elif [[ $command == @(info|get|cat) ]]; then
		_npk_arrays "$(_npk_unquote "$store")" "$cur"
	fi
}

complete -F _npk npk
