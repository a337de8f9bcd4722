# fish completion for npk(1): commands, options, stores, and the arrays of the store that was named. npk itself is asked for
# its commands and options, when the file is loaded.

# The operands behind the command, without options and their values; the word being completed is not among them.
function __npk_operands
    set -l words (commandline -opc)
    set -l skip 0
    for word in $words[3..-1]
        if test $skip = 1
            set skip 0
        else if contains -- $word $__npk_valued
            set skip 1
        else if not string match -q -- '-*' $word
            echo $word
        end
    end
end

function __npk_arrays
    set -l operands (__npk_operands)
    npk ls -- $operands[1] 2>/dev/null
end

function __npk_wants_store
    test (count (__npk_operands)) = 0
end

function __npk_wants_array
    test (count (__npk_operands)) -ge 1
end

set -l commands
set -g __npk_valued

for text in (npk help 2>/dev/null)
    set -l said (string match -r '^  ([a-z]+)  *([a-z].*)$' -- $text)
    or continue
    set -a commands $said[2]
    complete -c npk -n __fish_use_subcommand -a $said[2] -d $said[3]
end

complete -c npk -f
complete -c npk -n __fish_use_subcommand -s V -l version -d version
complete -c npk -s h -l help -d help
complete -c npk -n "__fish_seen_subcommand_from help" -a "$commands"

for command in $commands
    set -l seen "__fish_seen_subcommand_from $command"
    for text in (npk $command --help 2>/dev/null)
        set -l said (string match -r '^  -([a-zA-Z]), --([a-z-]+)( [^ ]+)?  +(.*)$' -- $text)
        or continue
        test $said[3] = help
        and continue
        set -l more
        switch "$said[4]"
            case ''
            case ' FILE'
                set more -r -F
            case '*'
                set more -x
        end
        if set -q more[1]
            set -a __npk_valued -$said[2] --$said[3]
        end
        complete -c npk -n $seen -s $said[2] -l $said[3] -d $said[5] $more
    end
    test $command = help
    and continue
    complete -c npk -n "$seen; and __npk_wants_store" -a '(__fish_complete_directories)'
    complete -c npk -n "$seen; and __npk_wants_array" -a '(__npk_arrays)' -F
end
