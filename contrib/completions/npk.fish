# fish completion for npk(1): commands, options, stores, and the arrays of the store that was named.

set -l commands ls info get cat verify help

# The operands behind the command, without options and their values; the word being completed is not among them.
function __npk_operands
    set -l words (commandline -opc)
    set -l skip 0
    for word in $words[3..-1]
        if test $skip = 1
            set skip 0
        else if contains -- $word -r --rows -s --sel -o --output -f --format -b --batch
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

complete -c npk -f
complete -c npk -n "not __fish_seen_subcommand_from $commands" -a ls -d 'list the arrays of a store'
complete -c npk -n "not __fish_seen_subcommand_from $commands" -a info -d 'tell about a store and its arrays'
complete -c npk -n "not __fish_seen_subcommand_from $commands" -a get -d 'write an array, or a selection of it, as a .npy file'
complete -c npk -n "not __fish_seen_subcommand_from $commands" -a cat -d 'print rows as text, or stream them as .npy'
complete -c npk -n "not __fish_seen_subcommand_from $commands" -a verify -d 'apply every check of the format to a store'
complete -c npk -n "not __fish_seen_subcommand_from $commands" -a help -d 'tell what there is, or about one command'
complete -c npk -n "not __fish_seen_subcommand_from $commands" -s V -l version -d version
complete -c npk -s h -l help -d help

complete -c npk -n "__fish_seen_subcommand_from help" -a "$commands"
complete -c npk -n "__fish_seen_subcommand_from ls info get cat verify; and __npk_wants_store" -a '(__fish_complete_directories)'
complete -c npk -n "__fish_seen_subcommand_from info get cat; and __npk_wants_array" -a '(__npk_arrays)'

complete -c npk -n "__fish_seen_subcommand_from ls" -s l -l long -d 'also dtype, shape, deleted rows and size'
complete -c npk -n "__fish_seen_subcommand_from ls info verify" -s j -l json -d 'as JSON'
complete -c npk -n "__fish_seen_subcommand_from verify" -s q -l quiet -d 'print nothing'
complete -c npk -n "__fish_seen_subcommand_from get cat" -s r -l rows -x -d 'only these rows'
complete -c npk -n "__fish_seen_subcommand_from get cat" -s s -l sel -x -d 'only this selection'
complete -c npk -n "__fish_seen_subcommand_from get" -s o -l output -r -F -d 'output file'
complete -c npk -n "__fish_seen_subcommand_from cat" -s f -l format -x -a 'csv text npy' -d format
complete -c npk -n "__fish_seen_subcommand_from cat" -s b -l batch -x -d 'rows in each .npy stream'
