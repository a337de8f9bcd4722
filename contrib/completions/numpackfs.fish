# fish completion of numpackfs(1)

# Each candidate is the list so far and one more option, a tab, and what it is for.
function __numpackfs_options
    set -l head (string replace -r '[^,]*$' '' -- (commandline -ct | string replace -r '^(-o|--options=)' ''))
    for line in \
            "ro|mount read-only" \
            "create|make the store when it is not there" \
            "drop_if_exists|remove all arrays first" \
            "sync=commit|durable every few seconds" \
            "sync=always|durable before each answer" \
            "sync=fsync|durable at fsync only" \
            "commit=|seconds between commits" \
            "lock_timeout=|seconds to wait for another writer" \
            "staging_ttl=|seconds that incomplete files are kept" \
            "show_control|list .numpack in the root" \
            "allow_other|let other users in" \
            "watch=inotify|follow the store, told by the kernel" \
            "watch=poll:|follow the store, looking every so many milliseconds" \
            "watch=off|serve the store as it was" \
            "attr_ttl=|seconds the kernel may keep names and attributes" \
            "threads=|threads that serve requests" \
            "ctl_max=|largest query and answer" \
            "header=numpy|headers as np.save writes them" \
            "header=4096|headers padded to a page" \
            "read_ahead_kb=|the kernel's read-ahead" \
            "uid=|owner of all files" \
            "gid=|group of all files" \
            "umask=|permission bits to take away" \
            "autocompact=|compact arrays of whose rows so many percent are deleted" \
            "sandbox|give up what serving does not need" \
            "cache_dir=|where arrays of a package are unpacked" \
            "log_level=error|errors only" \
            "log_level=warn|and warnings" \
            "log_level=info|and events" \
            "log_level=debug|and details" \
            "log_level=trace|and everything" \
            "log_file=|where to log"
        string replace '|' \t -- "$head$line"
    end
end

complete -c numpackfs -f -a '(__fish_complete_directories)'
complete -c numpackfs -s f -l foreground -d 'Stay in the foreground'
complete -c numpackfs -s d -l debug -d 'As -f, and log every request'
complete -c numpackfs -s o -l options -x -d 'Mount options' -a '(__numpackfs_options)'
complete -c numpackfs -s h -l help -d 'Show a summary'
complete -c numpackfs -s V -l version -d 'Show versions'
