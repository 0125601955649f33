{{/* Names. A group's name has up to 20 characters, so all stay below 63. */}}
{{- define "batchreset.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "batchreset.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 34 | trimSuffix "-" -}}
{{- else if contains (include "batchreset.name" .) .Release.Name -}}
{{- .Release.Name | trunc 34 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "batchreset.name" .) | trunc 34 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "batchreset.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "batchreset.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* What selects pods: of a component, and of a worker group. Takes root, component and, of workers, group. */}}
{{- define "batchreset.selector" -}}
app.kubernetes.io/name: {{ include "batchreset.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- with get . "group" }}
batchreset.group: {{ . }}
{{- end }}
{{- end -}}

{{- define "batchreset.labels" -}}
{{ include "batchreset.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | trunc 63 | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 }}
{{- end -}}

{{/* Seconds of a duration such as 1h10m0s. Takes value, and name for the error. */}}
{{- define "batchreset.seconds" -}}
{{- $d := toString .value -}}
{{- if eq $d "0" -}}
0
{{- else if not (regexMatch "^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$" $d) -}}
{{- fail (printf "%s must be a duration of whole hours, minutes and seconds, such as 1h10m0s, not %q" .name $d) -}}
{{- else if eq $d "" -}}
{{- fail (printf "%s is empty; it must be a duration such as 10m" .name) -}}
{{- else -}}
{{- $h := regexFind "[0-9]+h" $d | trimSuffix "h" | default "0" | atoi -}}
{{- $m := regexFind "[0-9]+m" $d | trimSuffix "m" | default "0" | atoi -}}
{{- $s := regexFind "[0-9]+s" $d | trimSuffix "s" | default "0" | atoi -}}
{{- add (mul $h 3600) (mul $m 60) $s -}}
{{- end -}}
{{- end -}}

{{/* The text of a setting. Helm has whole numbers of YAML as floats, which a template prints as 1e+06. */}}
{{- define "batchreset.setting" -}}
{{- if kindIs "slice" . -}}
{{- join "," . -}}
{{- else if and (kindIs "float64" .) (eq (floor .) .) -}}
{{- int64 . -}}
{{- else -}}
{{- toString . -}}
{{- end -}}
{{- end -}}

{{/* The environment that flags make, as a map. Takes config. */}}
{{- define "batchreset.settings" -}}
{{- range $flag, $value := . }}
{{- if not (kindIs "invalid" $value) }}
{{ printf "BATCHRESET_%s" ($flag | upper | replace "-" "_") }}: {{ include "batchreset.setting" $value | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The worker groups that there are, each with what all have: a map. */}}
{{- define "batchreset.groups" -}}
{{- $groups := dict -}}
{{- if .Values.demo.enabled -}}
{{- $demo := deepCopy .Values.workerDefaults -}}
{{- $_ := mergeOverwrite $demo (dict "replicas" 1 "config" (dict "driver" "simulator" "shutdown-timeout" "30s")) -}}
{{- $_ := set $groups "demo" $demo -}}
{{- else -}}
{{- range $name, $own := .Values.workers -}}
{{- if not (kindIs "invalid" $own) -}}
{{- $group := mergeOverwrite (deepCopy $.Values.workerDefaults) (deepCopy $own) -}}
{{- if $group.enabled -}}
{{- $_ := set $groups $name $group -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $groups -}}
{{- end -}}

{{/* Where the drivers of a group are: "inline", "flags" or "secret". */}}
{{- define "batchreset.driversFrom" -}}
{{- if get .group.config "driver" -}}
{{- if or .group.drivers .group.driversSecret.name -}}
{{- fail (printf "workers.%s: config.driver does not go together with drivers and driversSecret" .name) -}}
{{- end -}}
flags
{{- else if .group.drivers -}}
{{- if .group.driversSecret.name -}}
{{- fail (printf "workers.%s: drivers and driversSecret.name do not go together" .name) -}}
{{- end -}}
inline
{{- else -}}
secret
{{- end -}}
{{- end -}}

{{- define "batchreset.driversSecret" -}}
{{- if eq (include "batchreset.driversFrom" .) "inline" -}}
{{- printf "%s-drivers-%s" (include "batchreset.fullname" .root) .name -}}
{{- else -}}
{{- default (printf "%s-drivers-%s" (include "batchreset.fullname" .root) .name) .group.driversSecret.name -}}
{{- end -}}
{{- end -}}

{{/* The names of a group's drivers: {names: [...]}. */}}
{{- define "batchreset.driverNames" -}}
{{- $from := include "batchreset.driversFrom" . -}}
{{- $names := list -}}
{{- if eq $from "flags" -}}
{{- $names = list "default" -}}
{{- else if eq $from "inline" -}}
{{- range .group.drivers -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- if ne (len $names) (len (uniq $names)) -}}
{{- fail (printf "workers.%s.drivers: a name is there twice" .name) -}}
{{- end -}}
{{- else -}}
{{- $names = .group.driversSecret.names -}}
{{- end -}}
{{- toYaml (dict "names" $names) -}}
{{- end -}}

{{/*
How many items a worker of the group surely has when it is full: the least that one of its drivers can have under way. With a
greater number per worker KEDA would take away workers that are busy with that driver alone.
*/}}
{{- define "batchreset.perWorker" -}}
{{- $own := int64 (default 100 (get .group.config "concurrency")) -}}
{{- $least := $own -}}
{{- $from := include "batchreset.driversFrom" . -}}
{{- if eq $from "flags" -}}
{{- $bound := int64 (default 0 (get .group.config "driver-concurrency")) -}}
{{- if $bound -}}{{- $least = min $least $bound -}}{{- end -}}
{{- else if eq $from "inline" -}}
{{- range .group.drivers -}}
{{- $bound := int64 (default 0 (get . "concurrency")) -}}
{{- if $bound -}}{{- $least = min $least $bound -}}{{- end -}}
{{- end -}}
{{- else -}}
{{- $bound := int64 .group.driversSecret.leastConcurrency -}}
{{- if $bound -}}{{- $least = min $least $bound -}}{{- end -}}
{{- end -}}
{{- $target := int64 .group.keda.targetValue -}}
{{- if $target -}}{{- $target -}}{{- else -}}{{- $least -}}{{- end -}}
{{- end -}}

{{/* How long running attempts of a group may take to end: the flag, or the longest attempt that the chart knows of. */}}
{{- define "batchreset.shutdownSeconds" -}}
{{- $at := printf "workers.%s." .name -}}
{{- $seconds := include "batchreset.seconds" (dict "value" (default "0" (get .group.config "shutdown-timeout")) "name" (print $at "config.shutdown-timeout")) | int64 -}}
{{- if not $seconds -}}
{{- $seconds = include "batchreset.seconds" (dict "value" (default "10m" (get .group.config "attempt-timeout")) "name" (print $at "config.attempt-timeout")) | int64 -}}
{{- range .group.drivers -}}
{{- if get . "attempt_timeout" -}}
{{- $seconds = max $seconds (include "batchreset.seconds" (dict "value" .attempt_timeout "name" (print $at "drivers: attempt_timeout")) | int64) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $seconds -}}
{{- end -}}

{{- define "batchreset.redisSecret" -}}
{{- if .Values.demo.enabled -}}
{{- printf "%s-demo-redis" (include "batchreset.fullname" .) -}}
{{- else -}}
{{- .Values.redis.existingSecret -}}
{{- end -}}
{{- end -}}

{{- define "batchreset.scheme" -}}
{{- if .Values.tls.existingSecret -}}https{{- else -}}http{{- end -}}
{{- end -}}

{{- define "batchreset.opsHost" -}}
{{- printf "%s-ops.%s.svc" (include "batchreset.fullname" .) .Release.Namespace -}}
{{- end -}}

{{/* Values that a schema cannot judge. */}}
{{- define "batchreset.validate" -}}
{{- if and .Values.demo.enabled .Values.redis.existingSecret -}}
{{- fail "demo.enabled does not go together with redis.existingSecret: the demo has simulated phones and a Redis that forgets; nothing of it may reach a real one" -}}
{{- end -}}
{{- if not (or .Values.demo.enabled .Values.redis.existingSecret) -}}
{{- fail "redis.existingSecret is missing: the name of a Secret with the URLs of Redis. See the chart's README, or look around with demo.enabled=true" -}}
{{- end -}}
{{- if and .Values.tls.clientCASecret (not .Values.tls.clientCAKey) -}}
{{- fail "tls.clientCASecret needs tls.clientCAKey" -}}
{{- end -}}
{{- if and .Values.tls.clientCAKey (not .Values.tls.existingSecret) -}}
{{- fail "tls.clientCAKey needs tls.existingSecret: client certificates are a part of TLS" -}}
{{- end -}}
{{- if and .Values.keda.enabled (eq .Values.keda.trigger "prometheus") (not .Values.keda.prometheus.serverAddress) -}}
{{- fail "keda.trigger prometheus needs keda.prometheus.serverAddress" -}}
{{- end -}}
{{- $i := .Values.ingress -}}
{{- if and $i.tlsSecret (not $i.host) -}}
{{- fail "ingress.tlsSecret needs ingress.host" -}}
{{- end -}}
{{- if and $i.ops.enabled (not $i.ops.host) -}}
{{- fail "ingress.ops.enabled needs ingress.ops.host" -}}
{{- end -}}
{{- if and $i.enabled $i.ops.enabled (eq $i.host $i.ops.host) (eq (include "batchreset.ingressPath" .) (include "batchreset.opsIngressPath" .)) -}}
{{- fail "ingress.path and ingress.ops.path are the same on the same host: give api.config ops-path, such as /ops" -}}
{{- end -}}
{{- range $name, $group := include "batchreset.groups" . | fromYaml -}}
{{- if and $.Values.keda.enabled $group.keda.enabled (gt (int64 $group.keda.minReplicas) (int64 $group.keda.maxReplicas)) -}}
{{- fail (printf "workers.%s.keda: minReplicas is more than maxReplicas" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "batchreset.ingressPath" -}}
{{- .Values.ingress.path | default (get .Values.api.config "base-path") | default "/" -}}
{{- end -}}
{{- define "batchreset.opsIngressPath" -}}
{{- .Values.ingress.ops.path | default (get .Values.api.config "ops-path") | default "/" -}}
{{- end -}}
