package registry

import (
	"embed"

	"batchreset/tasks/redisdb/wire"
)

//go:embed lua
var files embed.FS

var scripts = wire.NewScripts(files, nil)

var (
	registerScript  = scripts.Script("register")
	protectScript   = scripts.Script("protect")
	acceptScript    = scripts.Script("accept")
	endedScript     = scripts.Script("ended")
	releaseScript   = scripts.Script("release")
	spendScript     = scripts.Script("spend")
	spendWaitScript = scripts.Script("spendwait")
	usedScript      = scripts.Script("used")
	policyScript    = scripts.Script("policy")
	haltScript      = scripts.Script("halt")
	revokeScript    = scripts.Script("revoke")
	shortenScript   = scripts.Script("shorten")
	wrongScript     = scripts.Script("wrong")
	resealScript    = scripts.Script("reseal")
	sessionScript   = scripts.Script("session")
	inviteScript    = scripts.Script("invite")
	firstScript     = scripts.Script("first")
	changeScript    = scripts.Script("change")
	removeScript    = scripts.Script("remove")
	loggedInScript  = scripts.Script("loggedin")
	useScript       = scripts.Script("use")
	paceScript      = scripts.Script("pace")
	endpointScript  = scripts.Script("endpoint")
	rotateScript    = scripts.Script("rotate")
	reportScript    = scripts.Script("report")
	addScript       = scripts.Script("add")
	alterScript     = scripts.Script("alter")
)
