################################################################################
#
# nerveshub-agent
#
################################################################################

NERVESHUB_AGENT_VERSION = $(call qstrip,$(BR2_PACKAGE_NERVESHUB_AGENT_COMMIT))
NERVESHUB_AGENT_SITE = $(call qstrip,$(BR2_PACKAGE_NERVESHUB_AGENT_REPOSITORY))
NERVESHUB_AGENT_SITE_METHOD = git
NERVESHUB_AGENT_LICENSE = Apache-2.0 or MIT
NERVESHUB_AGENT_LICENSE_FILES = LICENSE-APACHE LICENSE-MIT
# The commit is chosen in the configuration: no hash can be known here.
BR_NO_CHECK_HASH_FOR += $(NERVESHUB_AGENT_SOURCE)

NERVESHUB_AGENT_CARGO_BUILD_OPTS = --package nerveshub-agent

NERVESHUB_AGENT_BINARY = $(@D)/target/$(RUSTC_TARGET_NAME)/$(if $(BR2_ENABLE_DEBUG),debug,release)/nerveshub-agent

# "cargo install" would build it a second time.
define NERVESHUB_AGENT_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 $(NERVESHUB_AGENT_BINARY) \
		$(TARGET_DIR)/usr/sbin/nerveshub-agent
	$(INSTALL) -D -m 0600 $(@D)/etc/default/nerveshub-agent \
		$(TARGET_DIR)/etc/default/nerveshub-agent
	$(INSTALL) -d -m 0700 $(TARGET_DIR)/etc/nerveshub-agent/hooks
endef

define NERVESHUB_AGENT_INSTALL_INIT_SYSV
	$(INSTALL) -D -m 0755 $(@D)/etc/init.d/S80nerveshub-agent \
		$(TARGET_DIR)/etc/init.d/S80nerveshub-agent
endef

define NERVESHUB_AGENT_INSTALL_INIT_OPENRC
	$(INSTALL) -D -m 0755 $(@D)/etc/openrc/nerveshub-agent \
		$(TARGET_DIR)/etc/init.d/nerveshub-agent
endef

define NERVESHUB_AGENT_INSTALL_INIT_SYSTEMD
	$(INSTALL) -D -m 0644 $(@D)/etc/systemd/nerveshub-agent.service \
		$(TARGET_DIR)/usr/lib/systemd/system/nerveshub-agent.service
endef

# Secrets are kept there.
define NERVESHUB_AGENT_PERMISSIONS
	/etc/nerveshub-agent d 0700 0 0 - - - - -
	/etc/default/nerveshub-agent f 0600 0 0 - - - - -
endef

$(eval $(cargo-package))
