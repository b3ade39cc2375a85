local suspended = obj.spec.suspend == true
local stalled, ready = false, false
if obj.status ~= nil and obj.status.conditions ~= nil then
  for _, condition in ipairs(obj.status.conditions) do
    if condition.type == "Stalled" and condition.status == "True" then
      stalled = true
    elseif condition.type == "Ready" and condition.status == "True" then
      ready = true
    end
  end
end

local actions = {}
actions["retry"] = {["disabled"] = not stalled}
actions["suspend"] = {["disabled"] = suspended or ready}
actions["resume"] = {["disabled"] = not suspended}
return actions
