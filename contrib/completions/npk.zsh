#compdef npk
# zsh completion for npk(1): install it as _npk in a directory of $fpath.

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
}

_npk()
{
	local curcontext=$curcontext state line
	local -a commands sel
	commands=(
		'ls:list the arrays of a store'
		'info:tell about a store and its arrays'
		'get:write an array, or a selection of it, as a .npy file'
		'cat:print rows as text, or stream them as .npy'
		'verify:apply every check of the format to a store'
		'help:tell what there is, or about one command'
	)
	sel=(
		'(-r --rows -s --sel)'{-r,--rows}'[only these rows]:rows:'
		'(-r --rows -s --sel)'{-s,--sel}'[only this selection]:selection:'
	)
	if ((CURRENT == 2)); then
		_describe -t commands command commands
		_arguments '(-h --help)'{-h,--help}'[help]' '(-V --version)'{-V,--version}'[version]'
		return
	fi
	local command=$words[2]
	shift words
	((CURRENT--))
	case $command in
	ls)
		_arguments -S '(-l --long)'{-l,--long}'[also dtype, shape, deleted rows and size]' \
			'(-j --json)'{-j,--json}'[as JSON]' {-h,--help}'[help]' '1:store:_npk_stores'
		;;
	info)
		_arguments -S '(-j --json)'{-j,--json}'[as JSON]' {-h,--help}'[help]' '1:store:_npk_stores' '*:array:_npk_arrays'
		;;
	get)
		_arguments -S $sel '(-o --output)'{-o,--output}'[output file]:file:_files' {-h,--help}'[help]' \
			'1:store:_npk_stores' '2:array:_npk_arrays'
		;;
	cat)
		_arguments -S $sel '(-f --format)'{-f,--format}'[format]:format:(csv text npy)' \
			'(-b --batch)'{-b,--batch}'[rows in each .npy stream]:rows:' {-h,--help}'[help]' \
			'1:store:_npk_stores' '2:array:_npk_arrays'
		;;
	verify)
		_arguments -S '(-j --json)'{-j,--json}'[as JSON]' '(-q --quiet)'{-q,--quiet}'[print nothing]' {-h,--help}'[help]' \
			'1:store:_npk_stores'
		;;
	help)
		_describe -t commands command commands
		;;
	esac
}

_npk "$@"
