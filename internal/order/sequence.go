// SPDX-License-Identifier: Apache-2.0

package order

import (
	"path/filepath"
	"slices"
	"strings"

	"funlab.casa/omen/install/unitfile"
)

// sequence is in which order the units of a host start, as their files say it.
type sequence struct {
	files  unitFiles
	places map[string]*place
	added  map[string]bool
	after  map[string][]string // by unit: what starts after it
}

// place is what a unit says of its own place.
type place struct {
	before, after, wants []string
	plain                bool // it gets no order that it does not name
}

// readSequence reads the unit files below root. What cannot be read orders nothing.
func readSequence(root string) *sequence {
	s := &sequence{files: findUnitFiles(root), places: map[string]*place{}, added: map[string]bool{}, after: map[string][]string{}}
	for _, name := range s.files.names() {
		s.add(name)
	}
	return s
}

// way is the shortest one from a unit to another that starts after it, step by step;
// nil where there is none.
func (s *sequence) way(from, to string) []string {
	from = s.files.realName(from)
	came := map[string]string{from: ""}
	for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
		if queue[0] == to {
			return back(came, to)
		}
		s.add(queue[0]) // instances have no file of their own
		for _, next := range s.after[queue[0]] {
			if _, been := came[next]; !been {
				came[next] = queue[0]
				queue = append(queue, next)
			}
		}
	}
	return nil
}

func back(came map[string]string, to string) (way []string) {
	for ; to != ""; to = came[to] {
		way = append(way, to)
	}
	slices.Reverse(way)
	return way
}

// add puts a unit into the order, once.
func (s *sequence) add(name string) {
	name = s.files.realName(name)
	if s.added[name] {
		return
	}
	s.added[name] = true
	p := s.place(name)
	for _, other := range p.before {
		s.order(name, other)
	}
	for _, other := range p.after {
		s.order(other, name)
	}
	if filepath.Ext(name) == ".target" && !p.plain {
		s.addTarget(name, p)
	}
}

// addTarget has a target come after what it wants, unless one of them says otherwise
// (systemd.target(5)).
func (s *sequence) addTarget(name string, p *place) {
	for _, wanted := range slices.Concat(p.wants, s.files.wanted(name)) {
		if w := s.place(s.files.realName(wanted)); !w.plain && !slices.Contains(w.after, name) && !slices.Contains(p.before, wanted) {
			s.order(wanted, name)
		}
	}
}

func (s *sequence) order(first, then string) {
	first = s.files.realName(first)
	s.after[first] = append(s.after[first], s.files.realName(then))
}

// place reads what a unit says of itself, once.
func (s *sequence) place(name string) *place {
	p, known := s.places[name]
	if !known {
		p = placeOf(name, s.files.read(name))
		s.places[name] = p
	}
	return p
}

func placeOf(name string, settings []unitfile.Setting) *place {
	p := new(place)
	for _, one := range settings {
		if one.Section != "Unit" {
			continue
		}
		switch names := strings.Fields(specified(name, one.Value)); one.Key {
		case "Before":
			p.before = append(p.before, names...)
		case "After":
			p.after = append(p.after, names...)
		case "Wants", "Requires", "BindsTo", "Requisite":
			p.wants = append(p.wants, names...)
		case "DefaultDependencies":
			p.plain = slices.Contains([]string{"no", "n", "false", "f", "off", "0"}, strings.ToLower(one.Value))
		}
	}
	if filepath.Ext(name) != ".target" && !p.plain {
		p.after = append(p.after, "sysinit.target")
		if filepath.Ext(name) == ".service" {
			p.after = append(p.after, "basic.target")
		}
	}
	return p
}

// specified is a value without the specifiers that names of units are made with.
func specified(name, value string) string {
	if !strings.Contains(value, "%") {
		return value
	}
	stem := strings.TrimSuffix(name, filepath.Ext(name))
	prefix, instance, _ := strings.Cut(stem, "@")
	return strings.NewReplacer("%i", instance, "%I", instance, "%p", prefix, "%P", prefix, "%n", name, "%N", stem).Replace(value)
}
