-- Health of a ModelDeployment. Its conditions follow kstatus; Argo CD runs this without Lua's string library.
local hs = {status = "Progressing", message = "Waiting for Luthier's operator to look at this spec."}
if obj.metadata.deletionTimestamp ~= nil then
  hs.message = "Being deleted."
end
if obj.status == nil or obj.status.conditions == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return hs
end

local conditions = {}
for _, condition in ipairs(obj.status.conditions) do
  conditions[condition.type] = condition
end
local ready = conditions["Ready"]
if ready == nil then
  return hs
end

-- A rollout that goes on only when somebody promotes it.
local waits = obj.status.rollout ~= nil and obj.status.rollout.paused == true

hs.message = ready.message
if obj.metadata.deletionTimestamp ~= nil then
  hs.status = "Progressing"
elseif conditions["Stalled"] ~= nil and conditions["Stalled"].status == "True" then
  hs.status = "Degraded"
elseif waits then
  hs.status = "Suspended"
elseif conditions["Reconciling"] ~= nil and conditions["Reconciling"].status == "True" then
  hs.status = "Progressing"
elseif ready.status == "True" then
  hs.status = "Healthy"
elseif ready.reason == "Suspended" then
  hs.status = "Suspended"
end
return hs
