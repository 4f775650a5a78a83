// SPDX-License-Identifier: Apache-2.0

package rival

import "strings"

// strayFolders are where people put scripts of their own.
var strayFolders = []string{"/usr/local/bin", "/usr/local/sbin", "/root", "/root/bin"}

// scripts finds renewal scripts that nothing of the above starts: a person may, or
// a loop that nobody sees.
func (l *look) scripts() []Rival {
	var found []Rival
	for _, folder := range strayFolders {
		for _, name := range l.files.folder(folder) {
			path := folder + "/" + name
			file := l.files.read(path)
			if name == "omen-agent" || l.seen[path] || file == nil || !strings.HasPrefix(file.content, "#!") {
				continue
			}
			if e := l.text("it", file.content); e.strength >= renews {
				found = append(found, Rival{Name: path, Reason: e.reason, Disable: "rm " + path, Remarks: e.remarks})
			}
		}
	}
	return found
}
