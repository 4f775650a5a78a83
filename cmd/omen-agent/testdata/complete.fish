# SPDX-License-Identifier: Apache-2.0
# Completes the lines of its input with the completion in a file, and prints for each
# what is offered, then "=".
source $argv[1]
while read --local --delimiter=\n line
    complete -C "$line"
    echo
    echo =
end
