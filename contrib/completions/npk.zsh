#compdef npk
# zsh completion for npk(1): install it as _npk in a directory of $fpath. npk itself is asked for its commands and options.

_npk_stores()
{
	_files -/
}

# The store is the first operand behind the command.
_npk_arrays()
{
	local -a names
	names=("${(@f)$(npk ls -- "${(Q)line[1]}" 2>/dev/null)}")
	compadd -a names
	_files
}

_npk()
{
	local curcontext=$curcontext state line text
	local -a commands options
	for text in "${(@f)$(npk help 2>/dev/null)}"; do
		[[ $text =~ '^  ([a-z]+)  *([a-z].*)$' ]] && commands+=("$match[1]:$match[2]")
	done
	if ((CURRENT == 2)); then
		_describe -t commands command commands
		_arguments '(-h --help)'{-h,--help}'[help]' '(-V --version)'{-V,--version}'[version]'
		return
	fi
	local command=$words[2]
	shift words
	((CURRENT--))
	if [[ $command == help ]]; then
		_describe -t commands command commands
		return
	fi
	[[ $command =~ '^[a-z]+$' ]] || return
	for text in "${(@f)$(npk $command --help 2>/dev/null)}"; do
		if [[ $text =~ '^  (-[a-zA-Z]), (--[a-z-]+)( [^ ]+)?  +(.*)$' ]]; then
			local letter=$match[1] name=$match[2] value=$match[3] what=${match[4]//[\[\]:]/ }
			[[ $value == ' FILE' ]] && value=':file:_files'
			[[ $value == ' '* ]] && value=":${value# }:"
			options+=("($letter $name)$letter""[$what]$value" "($letter $name)$name""[$what]$value")
		fi
	done
	_arguments -S $options '1:store:_npk_stores' '*:array:_npk_arrays'
}

_npk "$@"
