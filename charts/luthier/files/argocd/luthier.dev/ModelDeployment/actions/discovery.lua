local suspended = obj.spec.suspend == true
local stalled, stage, waits = false, "", false
if obj.status ~= nil then
  for _, condition in ipairs(obj.status.conditions or {}) do
    if condition.type == "Stalled" and condition.status == "True" then
      stalled = true
    end
  end
  local rollout = obj.status.rollout
  if rollout ~= nil then
    stage, waits = rollout.stage, rollout.paused == true
  end
end
local begins, in_step = stage == "Starting", stage == "Step"

local actions = {}
actions["promote"] = {["disabled"] = not in_step, ["displayName"] = "Promote to the next step"}
actions["skip"] = {["disabled"] = not (begins or in_step), ["displayName"] = "Promote fully, without further steps"}
actions["pause"] = {["disabled"] = waits or not (begins or in_step), ["displayName"] = "Pause in this step"}
actions["abort"] = {["disabled"] = not (begins or in_step or stage == "Shifted"), ["displayName"] = "Abort and roll back"}
actions["retry"] = {["disabled"] = not stalled}
actions["suspend"] = {["disabled"] = suspended, ["displayName"] = "Suspend: remove the server"}
actions["resume"] = {["disabled"] = not suspended}
return actions
