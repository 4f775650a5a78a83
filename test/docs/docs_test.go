// SPDX-License-Identifier: Apache-2.0

package docs

import "testing"

// TestPages: every request in the pages about the auth method does what the page
// says, and is answered as the page says.
func TestPages(t *testing.T) {
	s := openStage(t)
	t.Run("auth-method", func(t *testing.T) { readMethod(t, s.on(t)) })
	t.Run("auth-method-api", func(t *testing.T) { readAPI(t, s.on(t)) })
}

func (s *stage) on(t *testing.T) *stage {
	there := *s
	there.t = t
	return &there
}
