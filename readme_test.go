package heartbeat_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Each Go snippet of the README stands in a test file, where it is compiled and run.
func TestReadmeSnippets(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	files, err := filepath.Glob("heartbeattest/*_test.go")
	require.NoError(t, err)
	var tested strings.Builder
	for _, file := range append(files, "example_test.go") {
		source, err := os.ReadFile(file)
		require.NoError(t, err)
		tested.Write(source)
	}
	indent := regexp.MustCompile(`(?m)^\t+`)
	snippets := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllSubmatch(readme, -1)
	require.NotEmpty(t, snippets)
	for _, snippet := range snippets {
		require.Contains(t, indent.ReplaceAllString(tested.String(), ""), indent.ReplaceAllString(string(snippet[1]), ""))
	}
}
