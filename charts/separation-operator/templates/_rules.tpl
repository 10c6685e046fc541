{{/* What the operator may do with pools of a namespace, or of all. */}}
{{- define "separation.rules" -}}
# Pools are followed. Nobody but people writes their spec.
- apiGroups: [separation.dev]
  resources: [separationpools]
  verbs: [list, watch]
# What is said about a pool, and nothing else of it.
- apiGroups: [separation.dev]
  resources: [separationpools/status]
  verbs: [patch]
# Workers. Deployments are applied: a patch, which is a create where there is none yet. They are never deleted: each
# belongs to its pool, and goes with it. Its owner reference does not block the pool's deletion, so that no right to
# separationpools/finalizers is needed, also where OwnerReferencesPermissionEnforcement is on.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch]
# Who is ready, draining or without a node; the patch marks idle pods as those that go first.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, patch]
# Secrets that pools name: Kafka, object store, webhooks; one by one by name. They are not listed or watched.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
# What a person would ask about. Each event is written once, and never changed.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end -}}
