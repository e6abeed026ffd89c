# Packages of this tree.
include $(sort $(wildcard $(BR2_EXTERNAL_NERVESHUB_AGENT_PATH)/package/*/*.mk))
