# SPDX-License-Identifier: Apache-2.0
# Completes the lines of its input with the completion in a file, and prints for each
# what is offered, then "=". An interactive zsh in a terminal does it.
zmodload zsh/zpty && zmodload zsh/zselect || exit

# expect waits until the terminal shows a text, and leaves all of it in REPLY.
expect() {
    local part
    integer until=$((SECONDS + 20))
    REPLY=''
    while ((SECONDS < until)); do
        if zpty -r -t typist part; then
            REPLY+=$part
            [[ $REPLY != *$1* ]] || return 0
        else
            zselect -t 1
        fi
    done
    print -r -- "zsh does not say $1: $REPLY" >&2
    exit 1
}

zpty typist zsh -f -i
# All that is offered goes through compadd, which then says it between < and >.
zpty -w typist "PS1= PS2= RPS1=; stty -echo
autoload -Uz compinit; compinit -u -D
fpath=(${1:h} \$fpath); autoload -Uz ${1:t}; compdef ${1:t} omen-agent
compadd() {
    local -a offered
    if [[ \${@[1,(i)(-|--)]} != *-(O|A|D)\ * ]]; then
        builtin compadd -O offered \"\$@\"
        print -rl -- \"<\"\${^offered}\">\"
    fi
    builtin compadd \"\$@\"
}
show() { LISTMAX=0; zle list-choices; print -r -- 'do''ne'; zle kill-whole-line }
zle -N show; bindkey '^O' show; print -r -- rea''dy"
expect ready
while IFS= read -r line; do
    zpty -w -n typist "$line"$'\x0f'
    expect done
    print -r -- "$REPLY" | grep -o '<[^<>]*>' | tr -d '<>' | sort -u
    print '\n='
done
zpty -d typist
