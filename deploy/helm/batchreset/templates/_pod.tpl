{{/*
A pod. Takes root, component, group (of workers), values (api, or the group's), env (a map, beside what follows from values),
redisKey, opsPort, reachable (whether the kubelet can reach its listeners), grace (seconds), files (of the drivers' Secret: name, key),
annotations.
*/}}
{{- define "batchreset.pod" -}}
{{- $root := .root -}}
{{- $v := .values -}}
{{- $tls := and .reachable $root.Values.tls.existingSecret -}}
{{- $env := dict "BATCHRESET_REDIS_FILE" "/run/batchreset/redis/url" -}}
{{- if $root.Values.secretKey.existingSecret -}}
{{- $_ := set $env "BATCHRESET_SECRET_KEY_FILE" "/run/batchreset/secret-key/key" -}}
{{- end -}}
{{- if $tls -}}
{{- $_ := set $env "BATCHRESET_TLS_CERT" "/run/batchreset/tls/tls.crt" -}}
{{- $_ := set $env "BATCHRESET_TLS_KEY" "/run/batchreset/tls/tls.key" -}}
{{- if and (eq .component "api") $root.Values.tls.clientCAKey -}}
{{- $_ := set $env "BATCHRESET_TLS_CLIENT_CA" "/run/batchreset/tls-client/ca.crt" -}}
{{- end -}}
{{- end -}}
{{- if get . "drivers" -}}
{{- $_ := set $env "BATCHRESET_DRIVERS" "/run/batchreset/drivers/drivers.yaml" -}}
{{- end -}}
{{- $env = mergeOverwrite (include "batchreset.settings" $v.config | fromYaml) $env .env -}}
{{- range $v.extraEnv -}}
{{- if hasKey $env .name -}}
{{- fail (printf "extraEnv: %s is set by the chart or by config already" .name) -}}
{{- end -}}
{{- end -}}
metadata:
  labels:
    {{- include "batchreset.labels" . | nindent 4 }}
    {{- range $name, $value := $v.podLabels }}
    {{- if or (hasPrefix "app.kubernetes.io/" $name) (eq $name "batchreset.group") }}
    {{- fail (printf "podLabels: %s is the chart's own" $name) }}
    {{- end }}
    {{ $name }}: {{ $value | quote }}
    {{- end }}
  {{- with merge (dict) .annotations $v.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "batchreset.serviceAccountName" $root }}
  automountServiceAccountToken: false
  enableServiceLinks: false # they would be hundreds of variables
  {{- with $root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- toYaml $root.Values.podSecurityContext | nindent 4 }}
  terminationGracePeriodSeconds: {{ .grace }}
  containers:
    - name: {{ .component }}
      image: "{{ $root.Values.image.repository }}:{{ get $v.image "tag" | default $root.Values.image.tag | default $root.Chart.AppVersion }}"
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: [{{ .command }}]
      securityContext:
        {{- toYaml $root.Values.securityContext | nindent 8 }}
      env:
        {{- range $name, $value := $env }}
        - name: {{ $name }}
          value: {{ $value | quote }}
        {{- end }}
        {{- with $v.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- if .reachable }}
      ports:
        {{- if eq .component "api" }}
        - {name: api, containerPort: 8080}
        {{- end }}
        - {name: ops, containerPort: {{ .opsPort }}}
      {{- end }}
      {{- $patience := include "batchreset.seconds" (dict "value" (default "30s" (get $v.config "redis-patience")) "name" "config.redis-patience") | int64 }}
      # It listens once Redis has answered, for which it waits for --redis-patience.
      startupProbe:
        {{- include "batchreset.probe" (dict "path" "/healthz" "ctx" .) | nindent 8 }}
        periodSeconds: 2
        timeoutSeconds: 3
        failureThreshold: {{ div (add $patience 31) 2 }}
      # Whether the process lives, not whether Redis does: a restart would not bring Redis back.
      livenessProbe:
        {{- include "batchreset.probe" (dict "path" "/healthz" "ctx" .) | nindent 8 }}
        periodSeconds: 10
        timeoutSeconds: 3
        failureThreshold: 3
      readinessProbe:
        {{- include "batchreset.probe" (dict "path" "/readyz" "ctx" .) | nindent 8 }}
        periodSeconds: 5
        timeoutSeconds: 3
        failureThreshold: 2
      resources:
        {{- toYaml (default (dict) $v.resources) | nindent 8 }}
      volumeMounts:
        - {name: redis, mountPath: /run/batchreset/redis, readOnly: true}
        {{- if $root.Values.secretKey.existingSecret }}
        - {name: secret-key, mountPath: /run/batchreset/secret-key, readOnly: true}
        {{- end }}
        {{- if $tls }}
        - {name: tls, mountPath: /run/batchreset/tls, readOnly: true}
        {{- if and (eq .component "api") $root.Values.tls.clientCAKey }}
        - {name: tls-client, mountPath: /run/batchreset/tls-client, readOnly: true}
        {{- end }}
        {{- end }}
        {{- if get . "drivers" }}
        - {name: drivers, mountPath: /run/batchreset/drivers, readOnly: true}
        {{- end }}
        {{- if $v.secretFiles }}
        - {name: files, mountPath: /run/batchreset/files, readOnly: true}
        {{- end }}
        {{- with $v.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    # Whole directories: Kubernetes renews a file that is mounted alone never.
    - name: redis
      secret:
        secretName: {{ include "batchreset.redisSecret" $root }}
        defaultMode: 0440
        items: [{key: {{ .redisKey | quote }}, path: url}]
    {{- with $root.Values.secretKey.existingSecret }}
    - name: secret-key
      secret:
        secretName: {{ . }}
        defaultMode: 0440
        items: [{key: {{ $root.Values.secretKey.key | quote }}, path: key}]
    {{- end }}
    {{- if $tls }}
    - name: tls
      secret:
        secretName: {{ $root.Values.tls.existingSecret }}
        defaultMode: 0440
        items:
          - {key: {{ $root.Values.tls.certKey | quote }}, path: tls.crt}
          - {key: {{ $root.Values.tls.keyKey | quote }}, path: tls.key}
    {{- if and (eq .component "api") $root.Values.tls.clientCAKey }}
    - name: tls-client
      secret:
        secretName: {{ $root.Values.tls.clientCASecret | default $root.Values.tls.existingSecret }}
        defaultMode: 0440
        items: [{key: {{ $root.Values.tls.clientCAKey | quote }}, path: ca.crt}]
    {{- end }}
    {{- end }}
    {{- with get . "drivers" }}
    - name: drivers
      secret:
        secretName: {{ .name }}
        defaultMode: 0440
        items: [{key: {{ .key | quote }}, path: drivers.yaml}]
    {{- end }}
    {{- with $v.secretFiles }}
    - name: files
      projected:
        defaultMode: 0440
        sources:
          {{- range $file, $from := . }}
          - secret:
              name: {{ $from.secret }}
              items: [{key: {{ $from.key | quote }}, path: {{ $file | quote }}}]
          {{- end }}
    {{- end }}
    {{- with $v.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $v.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- range . }}
    {{- $own := dict "labelSelector" (dict "matchLabels" (include "batchreset.selector" $ | fromYaml)) }}
    - {{ toYaml (merge (deepCopy .) $own) | nindent 6 | trim }}
    {{- end }}
  {{- end }}
  {{- with $v.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
{{- end -}}

{{/* How the kubelet asks: over the network, or by the program itself where nobody else reaches the listener. */}}
{{- define "batchreset.probe" -}}
{{- if .ctx.reachable -}}
httpGet:
  path: {{ .path }}
  port: ops
  scheme: {{ include "batchreset.scheme" .ctx.root | upper }}
{{- else -}}
exec:
  command: [/batchreset, healthcheck, --url, "http://127.0.0.1:{{ .ctx.opsPort }}{{ .path }}"]
{{- end -}}
{{- end -}}
