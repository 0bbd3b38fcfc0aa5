// The function at an address of a mapped ELF file, from the file's own table of symbols: a compiler's local functions,
// which is where the work is done, are not in the table that the loader keeps.
#pragma once

#include <elf.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>

// Finds the function that holds `offset`, counted from where `path` is mapped, and copies its name; "" if none does.
// Allocates nothing: signal handlers call it.
inline void find_symbol(const char* path, uint64_t offset, char* name, size_t size) {
  name[0] = '\0';
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  struct stat status {};
  if (file < 0 || fstat(file, &status)) return;
  const auto length = static_cast<size_t>(status.st_size);
  void* mapped = mmap(nullptr, length, PROT_READ, MAP_PRIVATE, file, 0);
  close(file);
  if (mapped == MAP_FAILED) return;
  const auto* bytes = static_cast<const char*>(mapped);
  const auto* header = reinterpret_cast<const Elf64_Ehdr*>(bytes);
  const auto* sections = reinterpret_cast<const Elf64_Shdr*>(bytes + header->e_shoff);
  for (int index = 0; index < header->e_shnum; ++index) {
    const Elf64_Shdr& section = sections[index];
    if (section.sh_type != SHT_SYMTAB && section.sh_type != SHT_DYNSYM) continue;
    const auto* symbols = reinterpret_cast<const Elf64_Sym*>(bytes + section.sh_offset);
    const char* names = bytes + sections[section.sh_link].sh_offset;
    for (size_t entry = 0; entry < section.sh_size / sizeof(Elf64_Sym); ++entry) {
      const Elf64_Sym& symbol = symbols[entry];
      if (ELF64_ST_TYPE(symbol.st_info) != STT_FUNC || symbol.st_shndx == SHN_UNDEF) continue;
      if (offset < symbol.st_value || offset >= symbol.st_value + symbol.st_size) continue;
      strncpy(name, names + symbol.st_name, size - 1);
      name[size - 1] = '\0';
      munmap(mapped, length);
      return;
    }
  }
  munmap(mapped, length);
}
