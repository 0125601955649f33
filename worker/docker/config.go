package docker

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// complete checks the settings that have nothing to do with the way to the engine, and fills in what
// is left out.
func (c *Config) complete() error {
	if len(c.Data) == 0 {
		c.Data = []string{"/data"}
	}
	if err := checkFolders(c.Data); err != nil {
		return fmt.Errorf("data %w", err)
	}
	if err := checkFolders(c.Keep); err != nil {
		return fmt.Errorf("keep %w", err)
	}
	for _, kept := range c.Keep {
		if slices.ContainsFunc(c.Data, func(data string) bool { return within(kept, data) || within(data, kept) }) {
			return fmt.Errorf("keep has %s, which overlaps with data", kept)
		}
	}
	if c.WipeCommand != nil && (len(c.WipeCommand) == 0 || !path.IsAbs(c.WipeCommand[0])) {
		return errors.New("wipe_command must begin with the path of a program in the image")
	}
	return checkProperties(c.Properties)
}

func checkProperties(properties map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		if name == "" || strings.ContainsAny(name, "= ") {
			return fmt.Errorf("properties has the name %.80q, which is empty or has a space or an equals sign", name)
		}
	}
	return nil
}

func checkFolders(folders []string) error {
	for _, folder := range folders {
		if !path.IsAbs(folder) || path.Clean(folder) != folder || folder == "/" {
			return fmt.Errorf("must list folders like /data, not %.80q", folder)
		}
	}
	return nil
}

// within says whether a path is the folder or below it.
func within(name, folder string) bool {
	return name == folder || strings.HasPrefix(name, strings.TrimSuffix(folder, "/")+"/")
}

func withinAny(name string, folders []string) bool {
	return slices.ContainsFunc(folders, func(folder string) bool { return within(name, folder) })
}
