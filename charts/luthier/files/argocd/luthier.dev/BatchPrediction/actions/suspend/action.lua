-- The spec: where Git sets suspend too, set it there, or the next sync takes this back.
obj.spec.suspend = true
return obj
