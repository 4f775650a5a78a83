# SPDX-License-Identifier: Apache-2.0
# Completes the lines of its input with the completion in a file, and prints for each
# what is offered, then "=". The words are cut as readline cuts them.
# shellcheck shell=bash source=/dev/null
source "$1"
complete=$(complete -p omen-agent)
complete=${complete#*-F }
compopt() { :; } # bash has it only while it completes
while IFS= read -r COMP_LINE; do
    IFS=' ' read -r -a COMP_WORDS <<<"${COMP_LINE//=/ = }"
    [[ $COMP_LINE != *[\ =] ]] || COMP_WORDS+=('')
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    "${complete% *}"
    printf '%s\n' "${COMPREPLY[@]}" '='
done
