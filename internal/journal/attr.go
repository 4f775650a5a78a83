// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"encoding"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// attr is an attribute as text.
type attr struct {
	key, value string
	messageID  string // of an event
	hidden     bool   // a field, and no part of the message: it stands there already
}

// event is a value with a MESSAGE_ID of its own.
type event interface{ MessageID() string }

// detailed is an error with fields of its own.
type detailed interface {
	error
	LogAttrs() []slog.Attr
}

// flatten gives an attribute as text, a group as all that is in it, an error with
// its fields behind it.
func flatten(prefix string, a slog.Attr) (all []attr) {
	value := a.Value.Resolve()
	if a.Equal(slog.Attr{}) {
		return nil
	}
	if value.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, inner := range value.Group() {
			all = append(all, flatten(prefix, inner)...)
		}
		return all
	}
	all = []attr{{key: oneLine(prefix + a.Key), value: oneLine(text(value))}}
	if e, ok := value.Any().(event); ok {
		all[0].messageID = e.MessageID()
	}
	if err, ok := value.Any().(error); ok {
		all = append(all, details(err)...)
	}
	return all
}

func details(err error) (all []attr) {
	var with detailed
	if !errors.As(err, &with) {
		return nil
	}
	for _, a := range with.LogAttrs() {
		for _, one := range flatten("", a) {
			one.hidden = true
			all = append(all, one)
		}
	}
	return all
}

// text is what a value shows of itself.
func text(value slog.Value) string {
	switch value.Kind() {
	case slog.KindTime:
		return value.Time().Format(time.RFC3339Nano)
	case slog.KindAny:
		return textOf(value.Any())
	}
	return value.String()
}

// textOf never prints the inside of a structure: there may be something in it that
// is hidden only as long as it is asked itself.
func textOf(value any) string {
	if v := reflect.ValueOf(value); v.Kind() == reflect.Pointer && v.IsNil() {
		return ""
	}
	switch v := value.(type) {
	case nil:
		return ""
	case error:
		return v.Error()
	case slog.LogValuer: // inside a list; elsewhere it is resolved by now
		return text(v.LogValue().Resolve())
	case fmt.Stringer:
		return v.String()
	case encoding.TextMarshaler:
		marshalled, err := v.MarshalText()
		if err != nil {
			return "[no text]"
		}
		return string(marshalled)
	}
	return plain(reflect.ValueOf(value))
}

// plain shows words, numbers and lists of them.
func plain(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Bool, reflect.String, reflect.Float32, reflect.Float64,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return fmt.Sprint(v)
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return fmt.Sprintf("[%d bytes]", v.Len())
		}
		var words []string
		for i := range min(v.Len(), maxItems) {
			words = append(words, textOf(v.Index(i).Interface()))
		}
		return strings.Join(words, ", ")
	}
	return "[" + v.Type().String() + "]"
}

const (
	maxItems = 64
	maxValue = 8 << 10 // bytes
)

// oneLine is printable text of one line and of bounded length.
func oneLine(s string) string {
	if len(s) > maxValue {
		s = s[:maxValue] + "…"
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return utf8.RuneError
		}
		return r
	}, s)
}
